package dag

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/spaolacci/murmur3"

	"github.com/koii-network/scale/dag/extsort"
)

// A HAMT directory is a trie over the hash of the names, one byte of it for
// each level, most significant first.
func hamtHashOf(name []byte) uint64 { return murmur3.Sum64(name) }

func hamtSlot(hash uint64, level int) byte { return byte(hash >> (56 - 8*level)) }

// hamtLevels is how many levels 64 bits of hash give.
const hamtLevels = 8

// slotNames are the prefixes that name the slots of a node.
var slotNames = func() (names [hamtWidth]string) {
	for i := range names {
		names[i] = fmt.Sprintf("%02X", i)
	}
	return names
}()

// A hamtWriter writes sharded directories from the bottom up. Entries come in
// order of their hashes, so that what a shard holds comes in one run: the shards
// around the last entry are open, and no others are in memory.
type hamtWriter struct {
	sink   Sink
	attr   Attr
	shards [hamtLevels]shard
	depth  int // how many of them are open
	msg    []byte
	entry  hashedEntry // the last one
}

// A shard is one that is being filled.
type shard struct {
	block    []byte
	bitfield [hamtWidth / 8]byte
	below    uint64 // sum of the links' sizes
}

type hashedEntry struct {
	hash uint64
	link link
	name []byte
}

// write writes a directory of at least one entry. The keys are hashes and names.
func (w *hamtWriter) write(sink Sink, entries *extsort.Sorter, a Attr) (link, error) {
	w.sink, w.attr, w.depth = sink, a, 0
	w.open(1)
	first, shared := true, 0
	for e, err := range entries.Sorted() {
		if err != nil {
			return link{}, err
		}
		if len(e.Key) <= 8 {
			return link{}, fmt.Errorf("key of %d bytes in the %w", len(e.Key), extsort.ErrScratch)
		}
		hash, name := binary.BigEndian.Uint64(e.Key), e.Key[8:]
		if !first {
			next := bits.LeadingZeros64(hash^w.entry.hash) / 8 // bytes in common
			if next == hamtLevels {
				if string(name) == string(w.entry.name) {
					return link{}, errTwice(name)
				}
				return link{}, fmt.Errorf("names %q and %q have one hash, a sharded directory cannot hold both: %w", w.entry.name, name, ErrPath)
			}
			// An entry is in the highest shard in which it is alone in its slot.
			if err := w.add(max(shared, next), next); err != nil {
				return link{}, err
			}
			shared = next
		}
		first = false
		w.entry.hash, w.entry.name = hash, append(w.entry.name[:0], name...)
		if w.entry.link, err = parseEntry(e.Value); err != nil {
			return link{}, err
		}
	}
	if err := w.add(shared, 0); err != nil {
		return link{}, err
	}
	return w.close()
}

// open opens shards until there are so many.
func (w *hamtWriter) open(depth int) {
	for ; w.depth < depth; w.depth++ {
		s := &w.shards[w.depth]
		*s = shard{block: s.block[:0]}
	}
}

// add links the last entry into the shard of a level, and closes those that the
// next entry is not in, which shares so many bytes of its hash.
func (w *hamtWriter) add(level, shared int) error {
	w.open(level + 1)
	w.link(level, w.entry.link, w.entry.name)
	for w.depth > shared+1 {
		l, err := w.close()
		if err != nil {
			return err
		}
		w.link(w.depth-1, l, nil)
	}
	return nil
}

// link links what has the hash of the last entry.
func (w *hamtWriter) link(level int, l link, name []byte) {
	s := &w.shards[level]
	slot := hamtSlot(w.entry.hash, level)
	s.bitfield[len(s.bitfield)-1-int(slot)/8] |= 1 << (slot % 8)
	s.block = appendLink(s.block, l, slotNames[slot], name)
	s.below += l.tsize
}

// close writes the innermost shard.
func (w *hamtWriter) close() (link, error) {
	w.depth--
	s := &w.shards[w.depth]
	a := Attr{Mode: DefaultDirMode}
	if w.depth == 0 {
		a = w.attr
	}
	w.msg = hamtMessage(w.msg[:0], &s.bitfield, a)
	s.block = appendData(s.block, w.msg)
	return writeNode(w.sink, s.block, s.below)
}
