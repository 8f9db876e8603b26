package store_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
	"github.com/koii-network/scale/store/rowpack"
)

// An orderly key-value store refuses rows that point at what is not durable.
type orderly struct {
	kv.Store
	t      *testing.T
	synced *atomic.Pointer[pack.Tail]
	packer *rowpack.Packer
}

func (o *orderly) Commit(ctx context.Context, b *kv.Batch) error {
	with := map[string]bool{}
	for r := range b.Rows() {
		with[string(r.Key)] = true
	}
	has := func(prefix byte, d dag.Digest) bool {
		key := append([]byte{prefix}, d[:]...)
		ok, err := o.Store.Has(ctx, key)
		return err == nil && ok || with[string(key)]
	}
	for r := range b.Rows() {
		switch r.Key[0] {
		case 'b':
			number, n := binary.Uvarint(r.Value)
			off, m := binary.Uvarint(r.Value[n:])
			size, _ := binary.Uvarint(r.Value[n+m:])
			if t := o.synced.Load(); uint32(number) > t.Pack || uint32(number) == t.Pack && off+size > t.End {
				o.t.Errorf("row of a chunk at %d to %d of pack %d, synced to %+v", off, off+size, number, t)
			}
		case 'd':
			value, err := o.packer.Open(nil, r.Value, dag.MaxBlock)
			if err != nil {
				o.t.Error(err)
				continue
			}
			node, err := merkledag.DecodeProtobuf(value)
			if err != nil {
				o.t.Error(err)
				continue
			}
			for _, l := range node.Links() {
				d, err := dag.DigestOf(l.Cid)
				if err != nil {
					o.t.Error(err)
				}
				prefix := byte('d')
				if l.Cid.Prefix().Codec == cid.Raw {
					prefix = 'b'
				}
				if d != dag.EmptyDigest && !has(prefix, d) {
					o.t.Errorf("node %x names %v, which has no row", r.Key[1:], l.Cid)
				}
			}
		}
	}
	return o.Store.Commit(ctx, b)
}

type orderlyPacks struct {
	pack.Store
	synced *atomic.Pointer[pack.Tail]
	syncs  atomic.Int64
}

func (o *orderlyPacks) Sync(ctx context.Context) error {
	o.syncs.Add(1)
	tail := o.Store.Tail()
	err := o.Store.Sync(ctx)
	if err == nil {
		o.synced.Store(&tail)
	}
	return err
}

// newPacker returns what opens nodes and commitment rows as they are stored.
func newPacker(t testing.TB) *rowpack.Packer {
	t.Helper()
	o, err := compress.NewOpener()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	p, err := rowpack.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newOrderly returns a harness whose writes are checked for their order.
func newOrderly(t *testing.T) (*harness, *orderlyPacks) {
	synced, packs := new(atomic.Pointer[pack.Tail]), new(orderlyPacks)
	h := newHarness(t, store.Options{
		FrameSize: 100 << 10,
		WrapKV:    func(s kv.Store) kv.Store { return &orderly{s, t, synced, newPacker(t)} },
		WrapPacks: func(s pack.Store) pack.Store {
			tail := s.Tail()
			synced.Store(&tail)
			packs.Store, packs.synced = s, synced
			return packs
		},
	})
	return h, packs
}

// segments gives data whose parts come again elsewhere.
func segments(r *rand.Rand, pool [][]byte, n int) []byte {
	var b []byte
	for range n {
		b = append(b, pool[r.IntN(len(pool))]...)
	}
	return b
}

// Puts that share chunks, nodes and frames are made durable in the right order, each
// reads back, and together they account for every byte.
func TestSharedWrites(t *testing.T) {
	h, _ := newOrderly(t)
	var pool [][]byte
	for i := range 12 {
		pool = append(pool, random(uint64(i), 50<<10+i*9000), text(uint64(i), 120<<10))
	}
	pool = append(pool, []byte("tiny"), []byte("tinier"))
	const puts = 10
	var mu sync.Mutex
	var sum store.Totals
	want := map[string][]byte{}
	var wg sync.WaitGroup
	for g := range 8 {
		r := rand.New(rand.NewPCG(7, uint64(g)))
		wg.Go(func() {
			for i := range puts {
				var in []store.Input
				for j := range 1 + r.IntN(3) {
					name, b := fmt.Sprintf("d%d.%d.%d", g, i, j), segments(r, pool, 1+r.IntN(6))
					if r.IntN(2) == 0 {
						in = append(in, stream(name, b))
					} else {
						in = append(in, store.Input{Name: name, Source: sourceOf(file{name: "f", data: b}, file{name: "g", data: b[len(b)/2:]})})
						name += "/f"
					}
					mu.Lock()
					want[name] = b
					mu.Unlock()
				}
				res, err := h.s.Put(h.ctx, in, store.PutOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, r := range res {
					sum.Unique += r.NewBytes
					sum.Packed += r.Stored
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for name, b := range want {
		if !bytes.Equal(h.get(name), b) {
			t.Errorf("%s reads back differently", name)
		}
	}
	got, err := h.s.Totals(h.ctx)
	if err != nil || got.Unique != sum.Unique || got.Packed != sum.Packed {
		t.Errorf("the puts say that they added %d bytes in %d, the store has %d in %d, %v", sum.Unique, sum.Packed, got.Unique, got.Packed, err)
	}
	h.check()
}
