package check

import (
	"context"
	"crypto/sha256"
	"strconv"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	unixfspb "github.com/ipfs/boxo/ipld/unixfs/pb"
	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"

	"github.com/koii-network/scale/dag"
)

// A node is a DAG node as boxo reads it.
type node struct {
	loss   loss
	kind   byte
	bytes  uint64 // of its block
	links  []link
	names  []string // of a directory's links
	sizes  []uint64 // of a file's children
	shard  []byte   // of a sharded directory, the slots of its links
	size   uint64   // of a file
	target string   // of a link
}

// node reads a node and checks that its parts fit together.
func (c *checker) node(ctx context.Context, d hash) (node, error) {
	b, err := c.get(ctx, rowKey('d', d[:]))
	if err != nil || b == nil {
		return node{loss: nodeMissing}, err
	}
	if b, err = c.unpack(b, dag.MaxBlock); err != nil || sha256.Sum256(b) != d {
		return node{loss: nodeDamaged}, nil
	}
	n, ok := parseNode(b)
	if !ok {
		return node{loss: nodeWrong}, nil
	}
	return n, nil
}

func parseNode(b []byte) (n node, ok bool) {
	p, err := merkledag.DecodeProtobuf(b)
	if err != nil || len(b) > dag.MaxBlock {
		return n, false
	}
	fs, err := unixfs.FSNodeFromBytes(p.Data())
	if err != nil {
		return n, false
	}
	n.bytes = uint64(len(b))
	for _, l := range p.Links() {
		d, err := dag.DigestOf(l.Cid)
		codec := l.Cid.Prefix().Codec
		if err != nil || codec == cid.DagCBOR {
			return n, false
		}
		n.links = append(n.links, link{codec: codec, digest: d, tsize: l.Size})
		n.names = append(n.names, l.Name)
	}
	switch fs.Type() {
	case unixfspb.Data_File:
		n.kind, n.size, n.sizes = kindFile, fs.FileSize(), fs.BlockSizes()
		return n, n.checkFile()
	case unixfspb.Data_Symlink:
		n.kind, n.target = kindLink, string(fs.Data())
		return n, len(n.links) == 0 && len(n.target) > 0 && len(n.target) <= maxTarget && !strings.Contains(n.target, "\x00")
	case unixfspb.Data_Directory:
		n.kind = kindDir
		return n, n.checkDir()
	case unixfspb.Data_HAMTShard:
		n.kind = kindDir
		return n, fs.Fanout() == width && fs.HashType() == murmur3x64 && n.checkShard()
	}
	return n, false
}

// murmur3x64 is the multicodec of 64 bits of MurmurHash3 x64 128.
const murmur3x64 = 0x22

func nameHash(name string) uint64 { return murmur3.Sum64([]byte(name)) }

func (n *node) checkFile() bool {
	if len(n.sizes) != len(n.links) || len(n.links) > width {
		return false
	}
	var sum uint64
	for i, s := range n.sizes {
		if s == 0 || s > 1<<62 || n.names[i] != "" || n.links[i].codec == cid.Raw && s > dag.MaxBlock {
			return false
		}
		sum += s
	}
	return sum == n.size
}

func (n *node) checkDir() bool {
	for i, name := range n.names {
		if !goodName(name) || i > 0 && name <= n.names[i-1] {
			return false
		}
	}
	return true
}

// checkShard takes the slots off the names. A name that is empty then is that of
// a shard below.
func (n *node) checkShard() bool {
	n.shard = make([]byte, len(n.names))
	for i, name := range n.names {
		if len(name) < 2 || name[:2] != strings.ToUpper(name[:2]) {
			return false
		}
		slot, err := strconv.ParseUint(name[:2], 16, 8)
		if err != nil || i > 0 && byte(slot) <= n.shard[i-1] {
			return false
		}
		n.shard[i], n.names[i] = byte(slot), name[2:]
		if n.names[i] == "" && n.links[i].codec == cid.Raw || n.names[i] != "" && !goodName(n.names[i]) {
			return false
		}
	}
	return len(n.names) > 0
}

func goodName(s string) bool {
	return len(s) > 0 && len(s) <= maxName && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}
