package dag

import (
	"fmt"
	"slices"

	"github.com/spaolacci/murmur3"
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

// A hamtWriter writes sharded directories from the bottom up: once the names
// are sorted by hash, every shard is a run of them.
type hamtWriter struct {
	sink   Sink
	set    *entrySet
	attr   Attr
	hashed []hashedRef
	blocks [hamtLevels][]byte
	msg    []byte
}

type hashedRef struct {
	hash uint64
	ref  uint32
}

func (w *hamtWriter) write(sink Sink, set *entrySet, a Attr) (link, error) {
	w.sink, w.set, w.attr = sink, set, a
	w.hashed = make([]hashedRef, len(set.refs))
	for i, ref := range set.refs {
		w.hashed[i] = hashedRef{hash: hamtHashOf(set.name(ref)), ref: ref}
	}
	slices.SortFunc(w.hashed, func(a, b hashedRef) int {
		if a.hash < b.hash {
			return -1
		}
		if a.hash > b.hash {
			return 1
		}
		return 0
	})
	l, err := w.shard(w.hashed, 0)
	w.set, w.hashed = nil, nil
	return l, err
}

// shard writes the shard of a run whose hashes agree in all bytes before
// level.
func (w *hamtWriter) shard(run []hashedRef, level int) (link, error) {
	if level == hamtLevels {
		return link{}, fmt.Errorf("names %q and %q have one hash, a sharded directory cannot hold both: %w",
			w.set.name(run[0].ref), w.set.name(run[1].ref), ErrPath)
	}
	var bitfield [hamtWidth / 8]byte
	var below uint64
	block := w.blocks[level][:0]
	for len(run) > 0 {
		slot := hamtSlot(run[0].hash, level)
		n := 1
		for n < len(run) && hamtSlot(run[n].hash, level) == slot {
			n++
		}
		bitfield[len(bitfield)-1-int(slot)/8] |= 1 << (slot % 8)
		l, name := w.set.entry(run[0].ref)
		if n > 1 {
			var err error
			if l, err = w.shard(run[:n], level+1); err != nil {
				return link{}, err
			}
			name = nil
		}
		block = appendLink(block, l, slotNames[slot], name)
		below += l.tsize
		run = run[n:]
	}
	a := Attr{Mode: DefaultDirMode}
	if level == 0 {
		a = w.attr
	}
	w.msg = hamtMessage(w.msg[:0], &bitfield, a)
	block = appendData(block, w.msg)
	w.blocks[level] = block
	return writeNode(w.sink, block, below)
}
