package check_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

// A tileReader reads tiles from rows.
type tileReader struct{ kv.Store }

func (r tileReader) ReadTile(ctx context.Context, level int, index int64, width int) ([]byte, error) {
	b, err := r.Get(ctx, binary.BigEndian.AppendUint64([]byte{'t', byte(level)}, uint64(index)), nil)
	return b[:min(len(b), 32*width)], err
}

func indexed(prefix string, i int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(prefix), uint64(i))
}

// forge appends an entry to the ledger as an engine would that checks nothing: a
// new dataset like that of entry 4, as change has it, signed by the store's curator
// unless another key is given. Tiles, checkpoint and mark are those of its log.
func forge(t *testing.T, dir string, other ed25519.PrivateKey, id *ledger.LogID, change func(*ledger.Entry)) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	skey, err := os.ReadFile(filepath.Join(dir, "keys/log.key"))
	must(err)
	log, err := note.NewSigner(strings.TrimSpace(string(skey)))
	must(err)
	curator := other
	if curator == nil {
		b, err := os.ReadFile(filepath.Join(dir, "keys/curator.json"))
		must(err)
		var ints []uint16
		must(json.Unmarshal(b, &ints))
		for _, v := range ints {
			curator = append(curator, byte(v))
		}
	}
	edit(t, dir, func(db kv.Store, b *kv.Batch) {
		last, err := db.Last(t.Context(), []byte("i"))
		must(err)
		n := int64(binary.BigEndian.Uint64(last.Key[1:])) + 1
		model, err := db.Get(t.Context(), indexed("i", 4), nil)
		must(err)
		block, err := db.Get(t.Context(), append([]byte("e"), model...), nil)
		must(err)
		e, err := ledger.ParseEntry(block)
		must(err)
		e.Name, e.Previous, e.Parents, e.Time = "forged", -1, nil, time.UnixMilli(1)
		change(e)
		lid := ledger.LogID{Origin: log.Name(), KeyID: log.KeyHash()}
		if id != nil {
			lid = *id
		}
		must(e.Sign(lid, curator))
		block, err = e.Marshal()
		must(err)
		d := sha256.Sum256(block)
		b.Set(append([]byte("e"), d[:]...), block)
		b.Set(indexed("i", n), d[:])
		b.Set(append([]byte("x"), d[:]...), indexed("", n))
		version := byte(1)
		for _, err := range db.Scan(t.Context(), []byte("n"+e.Name+"\x00"), nil) {
			must(err)
			version++
		}
		switch e.Kind {
		case ledger.KindPolicy:
			b.Set(indexed("o", n), nil)
		case ledger.KindDataset:
			root, err := dag.DigestOf(e.Root)
			must(err)
			b.Set(indexed("k"+string(root[:]), n), nil)
			b.Set(indexed("q", n), []byte{version, 0, 0, 0})
			fallthrough
		case ledger.KindRemoval:
			b.Set([]byte("n"+e.Name+"\x00\x00\x00\x00"+string(version)), indexed("", n))
		}
		old, err := ledger.Root(t.Context(), tileReader{db}, n)
		must(err)
		now, tiles, err := ledger.Append(t.Context(), tileReader{db}, n, old, []tlog.Hash{ledger.LeafHash(block)})
		must(err)
		for _, tile := range tiles {
			b.Set(binary.BigEndian.AppendUint64([]byte{'t', byte(tile.Level)}, uint64(tile.Index)), tile.Data)
		}
		signed, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: log.Name(), Size: n + 1, Root: now}, log)
		must(err)
		b.Set(indexed("c", n+1), signed)
		must(os.WriteFile(filepath.Join(dir, "highwater"), signed, 0o600))
	})
}

// removal and policy turn an entry of a dataset into one of another kind.
func removal(name string, previous int64) func(*ledger.Entry) {
	return func(e *ledger.Entry) {
		*e = ledger.Entry{Kind: ledger.KindRemoval, Name: name, Previous: previous, Policy: e.Policy, Time: e.Time}
	}
}

func policy(curators ...ledger.CuratorKey) func(*ledger.Entry) {
	return func(e *ledger.Entry) {
		*e = ledger.Entry{Kind: ledger.KindPolicy, Previous: -1, Policy: e.Policy, Time: e.Time, Curators: curators}
	}
}

// Entries of the kinds and policies that came later are judged by what was there when
// they came.
func TestForgedLater(t *testing.T) {
	stranger := ed25519.NewKeyFromSeed(make([]byte, 32))
	admitted := ledger.CuratorKey(stranger.Public().(ed25519.PublicKey))
	type step struct {
		key    ed25519.PrivateKey
		change func(*ledger.Entry)
	}
	under := func(policy int64, change func(*ledger.Entry)) func(*ledger.Entry) {
		return func(e *ledger.Entry) {
			e.Policy = policy
			change(e)
		}
	}
	dataset := func(previous int64) func(*ledger.Entry) {
		return func(e *ledger.Entry) { e.Name, e.Previous = "stream", previous }
	}
	for name, c := range map[string]struct {
		steps []step
		want  string
	}{
		"removal":                     {steps: []step{{change: removal("stream", 3)}}},
		"version after a removal":     {steps: []step{{change: dataset(3)}, {change: removal("stream", 5)}, {change: dataset(6)}}},
		"removal by a stranger":       {[]step{{key: stranger, change: removal("stream", 3)}}, "curator is not admitted"},
		"removal of an older version": {[]step{{change: removal("stream", 2)}}, "stream@2 leads to entry 3"},
		"removal of a policy":         {[]step{{change: removal("stream", 0)}}, "no dataset before it"},
		"removal of what is to come":  {[]step{{change: removal("stream", 7)}}, "no dataset before it"},
		"removal of a removal":        {[]step{{change: removal("stream", 3)}, {change: removal("stream", 5)}}, "no dataset before it"},
		"removal under another name":  {[]step{{change: removal("copy", 3)}}, "copy@2 leads to entry 5"},
		"version that skips one":      {[]step{{change: removal("stream", 3)}, {change: dataset(3)}}, "it follows entry 3, but version 3 of stream is entry 5"},
		"policy":                      {steps: []step{{change: policy(admitted)}, {key: stranger, change: under(5, dataset(3))}}},
		"policy by a stranger":        {[]step{{key: stranger, change: policy(admitted)}}, "curator is not admitted"},
		"curator who is gone":         {[]step{{change: policy(admitted)}, {change: under(5, dataset(3))}}, "curator is not admitted"},
		"stale policy":                {[]step{{change: policy(admitted)}, {key: stranger, change: dataset(3)}}, "it names policy 0, in force is 5"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copySmall(t)
			for _, s := range c.steps {
				forge(t, dir, s.key, nil, s.change)
			}
			found, sum := run(t, dir, check.Options{})
			if c.want == "" {
				if !sum.Sound() || sum.Entries != int64(5+len(c.steps)) {
					t.Errorf("%+v %+v", sum, found)
				}
				return
			}
			if sum.Sound() || !strings.Contains(fmt.Sprint(found), c.want) {
				t.Errorf("nothing says %q: %+v", c.want, found)
			}
		})
	}
}

// An entry that should not have been admitted, or that says what is not so, is
// found even where everything is signed and every hash is right.
func TestForged(t *testing.T) {
	stranger := ed25519.NewKeyFromSeed(make([]byte, 32))
	for name, c := range map[string]struct {
		key    ed25519.PrivateKey
		id     *ledger.LogID
		change func(*ledger.Entry)
		want   string
	}{
		"nothing wrong":     {change: func(*ledger.Entry) {}},
		"stranger":          {key: stranger, change: func(*ledger.Entry) {}, want: "curator is not admitted"},
		"another log":       {id: &ledger.LogID{Origin: "other"}, change: func(*ledger.Entry) {}, want: "invalid signature"},
		"policy":            {change: func(e *ledger.Entry) { e.Policy = 1 }, want: "it names policy 1, in force is 0"},
		"parent":            {change: func(e *ledger.Entry) { e.Parents = []cid.Cid{ledger.EntryCID([]byte("none"))} }, want: "is not an entry before it"},
		"previous":          {change: func(e *ledger.Entry) { e.Previous = 2 }, want: "it follows entry 2"},
		"size":              {change: func(e *ledger.Entry) { e.Size++ }, want: "its entry says"},
		"files":             {change: func(e *ledger.Entry) { e.Files-- }, want: "its entry says"},
		"chunks":            {change: func(e *ledger.Entry) { e.Chunks++ }, want: "its entry says"},
		"more leaves":       {change: func(e *ledger.Entry) { e.Leaves++ }, want: "its entry says"},
		"fewer leaves":      {change: func(e *ledger.Entry) { e.Leaves--; e.Files = 1 }, want: "its entry says"},
		"commitment":        {change: func(e *ledger.Entry) { e.Commitment[0]++ }, want: "nothing in it can be proven"},
		"root that is none": {change: func(e *ledger.Entry) { e.Root = dag.NodeCID(dag.Digest{1}) }, want: "node of its DAG is missing"},
		"chunk that is none": {change: func(e *ledger.Entry) {
			e.Root, e.Size, e.Files, e.Leaves, e.Chunks = dag.RawCID(dag.Digest{1}), 5, 1, 1, 1
		}, want: "a chunk is not in the index"},
		"node as a chunk": {change: func(e *ledger.Entry) {
			d, err := dag.DigestOf(e.Root)
			if err != nil {
				t.Fatal(err)
			}
			e.Root = dag.RawCID(d)
		}, want: "a chunk is not in the index"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copySmall(t)
			forge(t, dir, c.key, c.id, c.change)
			found, sum := run(t, dir, check.Options{})
			if c.want == "" {
				if !sum.Sound() || sum.Entries != 6 {
					t.Errorf("%+v %+v", sum, found)
				}
				return
			}
			if sum.Sound() || !strings.Contains(fmt.Sprint(found), c.want) {
				t.Errorf("nothing says %q: %+v", c.want, found)
			}
		})
	}
}
