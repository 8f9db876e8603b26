package dag

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/ipfs/go-cid"
)

// A node is a dag-pb node with a UnixFS message that has been checked: all
// its parts fit the type and each other. Its slices point into the block.
type node struct {
	links []namedLink
	fsMessage
}

type namedLink struct {
	link
	name []byte
}

type fsMessage struct {
	fields     uint // bits of the field numbers that are there
	typ        uint64
	data       []byte
	filesize   uint64
	blocksizes []uint64
	hashType   uint64
	fanout     uint64
	mode       uint64
	mtime      time.Time
}

// loadNode reads and parses the node that c names.
func loadNode(ctx context.Context, r Reader, d Digest) (*node, error) {
	block, err := r.Node(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("read node %v: %w", NodeCID(d), err)
	}
	n, err := parseNode(block)
	if err != nil {
		return nil, fmt.Errorf("node %v: %w", NodeCID(d), err)
	}
	return n, nil
}

// parseNode accepts exactly what the encoder above could have written: fields
// in order and once, numbers in their shortest form, no field that it does
// not know. A link takes 43 bytes of the block or more, so what is allocated
// is within a small factor of the block.
func parseNode(block []byte) (*node, error) {
	if len(block) > MaxBlock {
		return nil, fmt.Errorf("block of %d bytes: %w", len(block), ErrFormat)
	}
	n := new(node)
	c := cursor{rest: block}
	for len(c.rest) > 0 && c.rest[0] == nodeLinks {
		c.byte()
		l, ok := parseLink(c.bytes(c.uvarint()))
		if !ok {
			return nil, fmt.Errorf("link %d: %w", len(n.links), ErrFormat)
		}
		n.links = append(n.links, l)
	}
	if c.byte() != nodeData {
		return nil, fmt.Errorf("node without data: %w", ErrFormat)
	}
	message := c.bytes(c.uvarint())
	if !c.end() || !n.parseMessage(message) {
		return nil, fmt.Errorf("node data: %w", ErrFormat)
	}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrFormat)
	}
	return n, nil
}

func parseLink(b []byte) (l namedLink, ok bool) {
	c := cursor{rest: b}
	if c.byte() != linkHash {
		return l, false
	}
	l.codec, l.digest, ok = splitCID(c.bytes(c.uvarint()))
	if !ok || l.codec != cid.Raw && l.codec != cid.DagProtobuf || c.byte() != linkName {
		return l, false
	}
	l.name = c.bytes(c.uvarint())
	if c.byte() != linkTsize {
		return l, false
	}
	l.tsize = c.uvarint()
	return l, c.end()
}

func (m *fsMessage) parseMessage(b []byte) bool {
	c := cursor{rest: b}
	for last := byte(0); len(c.rest) > 0; {
		tag := c.byte()
		if tag < last || tag == last && tag != fsBlocksize {
			return false
		}
		last = tag
		switch tag {
		case fsType:
			m.typ = c.uvarint()
		case fsData:
			m.data = c.bytes(c.uvarint())
		case fsFilesize:
			m.filesize = c.uvarint()
		case fsBlocksize:
			m.blocksizes = append(m.blocksizes, c.uvarint())
		case fsHashType:
			m.hashType = c.uvarint()
		case fsFanout:
			m.fanout = c.uvarint()
		case fsMode:
			m.mode = c.uvarint()
		case fsMtime:
			t := cursor{rest: c.bytes(c.uvarint())}
			if m.mtime = parseTime(&t); !t.end() {
				return false
			}
		default:
			return false
		}
		m.fields |= 1 << (tag >> 3)
	}
	return c.end()
}

func parseTime(c *cursor) time.Time {
	if c.byte() != timeSeconds {
		c.bad = true
	}
	sec := int64(c.uvarint())
	nsec := uint32(0)
	if len(c.rest) > 0 {
		if c.byte() != timeNanos {
			c.bad = true
		}
		if b := c.bytes(4); b != nil {
			nsec = binary.LittleEndian.Uint32(b)
		}
		c.bad = c.bad || nsec == 0 || nsec > 999_999_999
	}
	t := time.Unix(sec, int64(nsec)).UTC()
	// Zero would read as "not recorded".
	c.bad = c.bad || sec < minTime || sec > maxTime || t.IsZero()
	return t
}

// field is the bit of a field in fsMessage.fields.
func field(tag int) uint { return 1 << (tag >> 3) }

// check checks that the parts of a node fit together.
func (n *node) check() error {
	attrs := field(fsMode) | field(fsMtime)
	fields := n.fields &^ attrs
	if n.mode > 0o7777 {
		return fmt.Errorf("mode %#o", n.mode)
	}
	switch n.typ {
	case typeFile:
		if len(n.links) > 0 {
			fields &^= field(fsBlocksize)
		}
		if fields != field(fsType)|field(fsFilesize) {
			return fmt.Errorf("fields %b of a file", n.fields)
		}
		return n.checkFile()
	case typeDirectory:
		if fields != field(fsType) {
			return fmt.Errorf("fields %b of a directory", n.fields)
		}
		return n.checkDir()
	case typeHAMT:
		if fields != field(fsType)|field(fsData)|field(fsHashType)|field(fsFanout) {
			return fmt.Errorf("fields %b of a sharded directory", n.fields)
		}
		return n.checkShard()
	case typeSymlink:
		if fields != field(fsType)|field(fsData) || len(n.links) > 0 {
			return fmt.Errorf("fields %b of a link", n.fields)
		}
		return checkTarget(n.data)
	}
	return fmt.Errorf("node of type %d", n.typ)
}

// checkFile: the links are all chunks or all nodes, none of them empty, and
// their sizes add up.
func (n *node) checkFile() error {
	if len(n.links) != len(n.blocksizes) || len(n.links) > dagWidth {
		return fmt.Errorf("file node of %d links and %d sizes", len(n.links), len(n.blocksizes))
	}
	var sum uint64
	for i, l := range n.links {
		size := n.blocksizes[i]
		if len(l.name) > 0 || l.codec != n.links[0].codec {
			return fmt.Errorf("file node has a link %q of codec %#x", l.name, l.codec)
		}
		if size == 0 || size > maxFileSize-sum || l.codec == cid.Raw && size > MaxBlock {
			return fmt.Errorf("file node has a child of %d bytes", size)
		}
		sum += size
	}
	if sum != n.filesize {
		return fmt.Errorf("file node of %d bytes has children of %d", n.filesize, sum)
	}
	return nil
}

func (n *node) checkDir() error {
	for i, l := range n.links {
		if err := checkName(l.name); err != nil {
			return err
		}
		if i > 0 && string(n.links[i-1].name) >= string(l.name) {
			return fmt.Errorf("name %q after %q", l.name, n.links[i-1].name)
		}
	}
	return nil
}

func (n *node) checkShard() error {
	if n.hashType != hamtHash || n.fanout != hamtWidth {
		return fmt.Errorf("shard of hash %#x and fan-out %d", n.hashType, n.fanout)
	}
	if len(n.data) == 0 || len(n.data) > hamtWidth/8 || n.data[0] == 0 {
		return fmt.Errorf("shard with a bitfield of %d bytes", len(n.data))
	}
	i := 0
	for slot := range hamtWidth {
		if !n.hasSlot(slot) {
			continue
		}
		if i == len(n.links) || len(n.links[i].name) < 2 || string(n.links[i].name[:2]) != slotNames[slot] {
			return fmt.Errorf("shard without a link for slot %s", slotNames[slot])
		}
		if name := n.links[i].name[2:]; len(name) > 0 {
			if err := checkName(name); err != nil {
				return err
			}
		} else if n.links[i].codec != cid.DagProtobuf {
			return fmt.Errorf("shard has a chunk as shard")
		}
		i++
	}
	if i != len(n.links) {
		return fmt.Errorf("shard of %d slots and %d links", i, len(n.links))
	}
	return nil
}

// hasSlot tells whether a slot of a shard is taken.
func (n *node) hasSlot(slot int) bool {
	i := len(n.data) - 1 - slot/8
	return i >= 0 && n.data[i]>>(slot%8)&1 == 1
}

// slotLink returns the place of a slot's link.
func (n *node) slotLink(slot int) int {
	i := max(len(n.data)-1-slot/8, -1)
	count := 0
	if i >= 0 {
		count = bits.OnesCount8(n.data[i] & (1<<(slot%8) - 1))
	}
	for _, b := range n.data[i+1:] {
		count += bits.OnesCount8(b)
	}
	return count
}

// info returns what the node says of its file, directory or link.
func (n *node) info(c cid.Cid) Info {
	in := Info{CID: c, Attr: Attr{Mode: uint32(n.mode), Mtime: n.mtime}, SizeKnown: true}
	assumed := uint32(DefaultDirMode)
	switch n.typ {
	case typeFile:
		in.Kind, in.Size, assumed = KindFile, n.filesize, DefaultFileMode
	case typeSymlink:
		in.Kind, in.Target, assumed = KindLink, string(n.data), linkMode
		in.Size = uint64(len(in.Target))
	default:
		in.Kind = KindDir
	}
	if n.fields&field(fsMode) == 0 {
		in.Attr.Mode = assumed
	}
	return in
}
