package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store"
)

func TestStreams(t *testing.T) {
	h := newHarness(t, store.Options{FrameSize: 100 << 10})
	inputs := map[string][]byte{
		"empty":   {},
		"byte":    {7},
		"small":   text(1, 1000),
		"chunk":   random(2, 20<<10),
		"slabs":   text(3, 5<<20+17),
		"random":  random(4, 3<<20),
		"zeros":   make([]byte, 4<<20),
		"repeats": bytes.Repeat(random(5, 300<<10), 10),
	}
	for name, b := range inputs {
		// One byte at a time and in halves: cuts must not depend on how bytes arrive.
		whole := h.mustPut(stream(name, b))[0]
		again := h.mustPut(store.Input{Name: name, Reader: iotest.HalfReader(bytes.NewReader(b))})[0]
		if !again.Unchanged || again.CID != whole.CID {
			t.Errorf("%s: read in halves gives %v, whole gives %v", name, again.CID, whole.CID)
		}
		if whole.Size != uint64(len(b)) || whole.Files != 1 || whole.Kind != dag.KindFile {
			t.Errorf("%s: %+v", name, whole)
		}
	}
	h.check()
	for name, b := range inputs {
		if got := h.get(name); !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes come back, put %d", name, len(got), len(b))
		}
	}
	d := h.resolve("repeats").Dataset
	if d.NewBytes > 600<<10 {
		t.Errorf("3 MB that repeat every 300 KiB stored %d new bytes", d.NewBytes)
	}
}

func TestRanges(t *testing.T) {
	h := newHarness(t, store.Options{FrameSize: 64 << 10})
	b := text(1, 700_001)
	h.mustPut(stream("x", b))
	o := h.resolve("x")
	n := uint64(len(b))
	for _, r := range []store.Range{{0, 0}, {0, 1}, {0, n}, {n - 1, n}, {n, n}, {5, store.ToEnd}, {100_000, 100_001}, {65_535, 200_000}, {n - 3, n + 100}} {
		var got bytes.Buffer
		if _, err := h.s.Get(h.ctx, o, &r, &got); err != nil {
			t.Errorf("%v: %v", r, err)
		}
		if want := b[r.From:min(r.To, n)]; !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%v: %d bytes, want %d", r, got.Len(), len(want))
		}
	}
	for _, r := range []store.Range{{2, 1}, {n + 1, store.ToEnd}} {
		if _, err := h.s.Get(h.ctx, o, &r, io.Discard); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", r, err)
		}
	}
}

func strangeTree(t *testing.T) string {
	return makeTree(t,
		file{name: "a.txt", data: []byte("a\n")},
		file{name: "a/b", data: text(1, 3000), mode: 0o600},
		file{name: "a/c/d", data: random(2, 1<<20), mode: 0o755},
		file{name: "a-", data: text(3, 300<<10)},
		file{name: "big", data: text(4, 2<<20)},
		file{name: "empty", data: nil},
		file{name: "hollow/"},
		file{name: "hollow2/deep/"},
		file{name: "new\nline", data: []byte("n")},
		file{name: "latin\xe9", data: []byte("l")},
		file{name: "same1", data: random(6, 100<<10)},
		file{name: "same2", data: random(6, 100<<10)},
		file{name: "suid", data: []byte("s"), mode: 0o755 | fs.ModeSetuid},
		file{name: "to-a", link: "a.txt"},
		file{name: "to-nowhere", link: "/does/not/exist"},
		file{name: "ro/", mode: 0o555},
	)
}

func TestTree(t *testing.T) {
	h := newHarness(t, store.Options{})
	root := strangeTree(t)
	res := h.mustPut(store.Input{Name: "tree", Path: root})[0]
	if res.Kind != dag.KindDir || res.Files != 11 || res.Leaves != 11+2+3 || len(res.Skipped) != 0 {
		t.Errorf("%+v", res)
	}
	h.check()
	got := h.tree("tree")
	want := map[string]string{
		"": "dir 0755", "a": "dir 0755", "a/c": "dir 0755", "hollow": "dir 0755", "hollow2": "dir 0755",
		"hollow2/deep": "dir 0755", "ro": "dir 0555", "to-a": "link a.txt", "to-nowhere": "link /does/not/exist",
	}
	for p, mode := range map[string]string{
		"a.txt": "0644", "a/b": "0600", "a/c/d": "0755", "a-": "0644", "big": "0644", "empty": "0644", "new\nline": "0644",
		"latin\xe9": "0644", "same1": "0644", "same2": "0644", "suid": "4755",
	} {
		b, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		want[p] = "file " + mode + " " + string(b)
	}
	if d := cmp.Diff(sortedKeys(want), sortedKeys(got)); d != "" {
		t.Fatal(d)
	}
	for p := range want {
		if got[p] != want[p] {
			t.Errorf("%q: %.40q, want %.40q", p, got[p], want[p])
		}
	}
	var listed []string
	for e, err := range h.s.List(h.ctx, h.resolve("tree")) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Info.SizeKnown && e.Info.Kind == dag.KindFile {
			t.Errorf("%q: size is not known", e.Path)
		}
		listed = append(listed, e.Path)
	}
	if len(listed) != len(want)-1 {
		t.Errorf("%d paths listed, want %d: %q", len(listed), len(want)-1, listed)
	}
	if got := h.get("tree/a/b"); !bytes.Equal(got, text(1, 3000)) {
		t.Errorf("tree/a/b: %d bytes", len(got))
	}
	if sub := h.tree("tree/a"); len(sub) != 4 || sub["c"] != "dir 0755" {
		t.Errorf("tree/a: %q", sortedKeys(sub))
	}
}

func TestTreeIsDeterministic(t *testing.T) {
	root := strangeTree(t)
	var want store.PutResult
	for i, o := range []store.Options{{}, {FrameSize: 64 << 10}, {FrameSize: 5000}} {
		h := newHarness(t, o)
		got := h.mustPut(store.Input{Name: "tree", Path: root})[0]
		if i == 0 {
			want = got
		}
		if got.CID != want.CID || got.Commitment != want.Commitment {
			t.Errorf("%+v: root %v, commitment %v; want %v, %v", o, got.CID, got.Commitment, want.CID, want.Commitment)
		}
	}
}

func TestVersions(t *testing.T) {
	h := newHarness(t, store.Options{})
	one := h.mustPut(stream("x", []byte("one")))[0]
	two := h.mustPut(stream("x", []byte("two")))[0]
	same := h.mustPut(stream("x", []byte("two")))[0]
	three := h.mustPut(stream("x", []byte("one")))[0]
	if !same.Unchanged || same.Entry != two.Entry || same.TreeSize != two.TreeSize {
		t.Errorf("putting the same again: %+v", same)
	}
	if three.Unchanged || three.Version != 3 || three.CID != one.CID {
		t.Errorf("putting the first again: %+v", three)
	}
	if d := cmp.Diff([]string{two.EntryCID.String()}, []string{three.Parents[0].String()}); d != "" {
		t.Error(d)
	}
	for ref, want := range map[string]int64{
		"x": three.Entry, "x@1": one.Entry, "x@2": two.Entry, "x@-1": two.Entry, "x@-2": one.Entry,
		":1": one.Entry, one.CID.String(): three.Entry, two.CID.String(): two.Entry, two.EntryCID.String(): two.Entry,
	} {
		if o := h.resolve(ref); o.Dataset.Entry != want {
			t.Errorf("%s is entry %d, want %d", ref, o.Dataset.Entry, want)
		}
	}
	for ref, want := range map[string]error{
		"y": store.ErrNotFound, "x@4": store.ErrNotFound, "x@-3": store.ErrNotFound, "x@0": store.ErrInvalid, "x@1x": store.ErrInvalid,
		":0": store.ErrInvalid, ":9": store.ErrNotFound, ":-1": store.ErrInvalid, ":01": store.ErrInvalid, "": store.ErrInvalid,
		"x/y": store.ErrNotFound, "a b": store.ErrInvalid, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku": store.ErrNotFound,
		"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn": store.ErrNotFound, "x/../x": store.ErrInvalid,
	} {
		if _, err := h.s.Resolve(h.ctx, ref); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
	// A number is a version or is not there: it never stands for another one.
	for _, sign := range []string{"", "-"} {
		for _, n := range []string{
			"2147483647", "2147483648", "2147483649", "4294967295", "4294967296", "4294967297", "4294967299",
			"9223372036854775807", "9223372036854775808", "18446744073709551617", strings.Repeat("9", 100),
		} {
			ref := "x@" + sign + n
			if o, err := h.s.Resolve(h.ctx, ref); !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "version") {
				t.Errorf("%s: %v, %v", ref, o, err)
			}
			for _, more := range []string{"0", "+", "-", "--"} {
				ref := "x@" + more + sign + n
				if more+sign == "-" {
					continue
				}
				if o, err := h.s.Resolve(h.ctx, ref); !errors.Is(err, store.ErrInvalid) {
					t.Errorf("%s: %v, %v", ref, o, err)
				}
			}
		}
	}
	var versions []int
	for v, err := range h.s.History(h.ctx, "x") {
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, v.Dataset.Version)
	}
	if d := cmp.Diff([]int{1, 2, 3}, versions); d != "" {
		t.Error(d)
	}
	child := h.mustPut(store.Input{Name: "y", Reader: strings.NewReader("y"), Parents: []int64{one.Entry, three.Entry}})[0]
	if len(child.Parents) != 2 || child.Parents[0] != one.EntryCID || child.Parents[1] != three.EntryCID {
		t.Errorf("parents of y: %v", child.Parents)
	}
	var names []string
	for d, err := range h.s.Datasets(h.ctx) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s@%d", d.Name, d.Version))
	}
	if d := cmp.Diff([]string{"x@3", "y@1"}, names); d != "" {
		t.Error(d)
	}
	h.check()
}

func TestOneCommitForMany(t *testing.T) {
	h := newHarness(t, store.Options{})
	before := h.s.Published().Size
	var in []store.Input
	for i := range 300 {
		in = append(in, stream(fmt.Sprintf("n%03d", i), text(uint64(i), 500+i)))
	}
	res := h.mustPut(in...)
	if got := h.s.Published().Size; got != before+300 {
		t.Errorf("ledger has %d entries, want %d", got, before+300)
	}
	var packed uint64
	for i, r := range res {
		if r.TreeSize != before+300 || r.Entry != before+int64(i) || r.NewBytes != uint64(500+i) {
			t.Errorf("%s: %+v", r.Name, r)
		}
		packed += r.Stored
	}
	tot, err := h.s.Totals(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if tot.Packed != packed || tot.Reclaimable != 0 || tot.Datasets != 300 || tot.Logical != tot.Unique {
		t.Errorf("packed %d in all: %+v", packed, tot)
	}
	// One bad input refuses all.
	if _, err := h.put(stream("ok", []byte("x")), store.Input{Name: "gone", Path: filepath.Join(t.TempDir(), "gone")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("put of a path that is not there: %v", err)
	}
	if got := h.s.Published().Size; got != before+300 {
		t.Errorf("a failed put left %d entries", got)
	}
	h.check()
}

func TestConcurrentPuts(t *testing.T) {
	h := newHarness(t, store.Options{})
	var wg sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		wg.Go(func() {
			for v := range 4 {
				b := text(uint64(i*10+v), 200<<10)
				if _, err := h.put(stream(fmt.Sprintf("n%d", i), b), stream("shared"+fmt.Sprint(i), text(uint64(v), 300<<10))); err != nil {
					errs[i] = err
					return
				}
				var got bytes.Buffer
				o, err := h.s.Resolve(h.ctx, fmt.Sprintf("n%d@%d", i, v+1))
				if err == nil {
					_, err = h.s.Get(h.ctx, o, nil, &got)
				}
				if err != nil || !bytes.Equal(got.Bytes(), b) {
					errs[i] = fmt.Errorf("n%d version %d reads back wrong: %w", i, v, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	h.check()
}

func TestProofs(t *testing.T) {
	h := newHarness(t, store.Options{})
	big := text(9, 1<<20)
	root := makeTree(t, file{name: "a/big", data: big}, file{name: "a/small", data: []byte("x")}, file{name: "b", data: nil})
	h.mustPut(store.Input{Name: "tree", Path: root}, stream("s", big))

	v := h.verify("tree/a/small", store.ProveOptions{})
	f, err := dag.HashFile(h.ctx, mustProfile(t), strings.NewReader("x"), nil, dag.Attr{Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.CheckFile(f); err != nil {
		t.Error(err)
	}
	for _, ref := range []string{"tree/a/big", "s"} {
		v := h.verify(ref, store.ProveOptions{Range: &store.Range{From: 300_000, To: 400_000}})
		from := v.Range.Offset
		to := from + v.Range.Size()
		if from > 300_000 || to < 400_000 {
			t.Fatalf("%s: range %d to %d does not hold what was asked for", ref, from, to)
		}
		if err := v.CheckRange(bytes.NewReader(big[from:to])); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		bad := slices.Clone(big[from:to])
		bad[len(bad)/2]++
		if err := v.CheckRange(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: a changed byte passes", ref)
		}
	}
	m := h.verify("tree", store.ProveOptions{Manifest: true})
	if !m.HasManifest {
		t.Error("no manifest in the proof")
	}
	for _, bad := range []struct {
		ref string
		opt store.ProveOptions
	}{
		{"tree/a", store.ProveOptions{}}, {"tree", store.ProveOptions{Range: &store.Range{From: 0, To: 1}}},
		{"tree/b", store.ProveOptions{Range: &store.Range{From: 0, To: 1}}}, {"tree/b", store.ProveOptions{Manifest: true}},
		{"s", store.ProveOptions{Range: &store.Range{From: 1 << 20, To: store.ToEnd}}},
	} {
		if _, err := h.s.Prove(h.ctx, h.resolve(bad.ref), bad.opt); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("prove %s %+v: %v, want ErrInvalid", bad.ref, bad.opt, err)
		}
	}
}

func mustProfile(t *testing.T) *dag.Profile {
	t.Helper()
	p, err := dag.LookupProfile(dag.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestConsistency(t *testing.T) {
	h := newHarness(t, store.Options{})
	for i := range 9 {
		h.mustPut(stream("x", []byte{byte(i)}))
	}
	for to := int64(1); to <= 10; to++ {
		for from := int64(1); from <= to; from++ {
			if _, err := h.s.Consistency(h.ctx, from, to); err != nil {
				t.Errorf("%d to %d: %v", from, to, err)
			}
		}
	}
	for _, r := range [][2]int64{{0, 1}, {3, 2}, {1, 11}} {
		if _, err := h.s.Consistency(h.ctx, r[0], r[1]); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", r, err)
		}
	}
}

func TestBadInputs(t *testing.T) {
	h := newHarness(t, store.Options{})
	h.mustPut(stream("x", []byte("x")))
	gone := filepath.Join(t.TempDir(), "gone")
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		in   []store.Input
		opt  store.PutOptions
		want error
	}{
		{"no inputs", nil, store.PutOptions{}, store.ErrInvalid},
		{"bad name", []store.Input{stream("a/b", nil)}, store.PutOptions{}, store.ErrInvalid},
		{"name that is a CID", []store.Input{stream("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", nil)}, store.PutOptions{}, store.ErrInvalid},
		{"one name twice", []store.Input{stream("a", nil), stream("a", nil)}, store.PutOptions{}, store.ErrInvalid},
		{"no source", []store.Input{{Name: "a"}}, store.PutOptions{}, store.ErrInvalid},
		{"two sources", []store.Input{{Name: "a", Path: "/", Reader: strings.NewReader("")}}, store.PutOptions{}, store.ErrInvalid},
		{"unknown profile", []store.Input{{Name: "a", Reader: strings.NewReader(""), Profile: "scale-9"}}, store.PutOptions{}, store.ErrInvalid},
		{"parent that is not there", []store.Input{{Name: "a", Reader: strings.NewReader(""), Parents: []int64{77}}}, store.PutOptions{}, store.ErrNotFound},
		{"path that is not there", []store.Input{{Name: "a", Path: gone}}, store.PutOptions{}, fs.ErrNotExist},
		{"link to itself", []store.Input{{Name: "a", Path: loop}}, store.PutOptions{}, errAny},
		{"device", []store.Input{{Name: "a", Path: "/dev/null"}}, store.PutOptions{}, errAny},
		{"reader that fails", []store.Input{{Name: "a", Reader: io.MultiReader(bytes.NewReader(random(1, 3<<20)), iotest.ErrReader(boom))}}, store.PutOptions{}, boom},
		{"stranger's key", []store.Input{stream("a", nil)}, store.PutOptions{Curator: store.Ed25519Signer(stranger)}, ledger.ErrNotAdmitted},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := h.s.Put(h.ctx, c.in, c.opt)
			if err == nil || c.want != errAny && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if got := h.s.Published().Size; got != 2 {
		t.Errorf("ledger has %d entries after refused puts, want 2", got)
	}
	h.check()
}

var errAny = errors.New("any error")

func TestCancelledPutLeavesNothing(t *testing.T) {
	h := newHarness(t, store.Options{})
	ctx, cancel := context.WithCancel(h.ctx)
	r := &cancellingReader{r: bytes.NewReader(random(1, 8<<20)), after: 4 << 20, cancel: cancel}
	if _, err := h.s.Put(ctx, []store.Input{{Name: "a", Reader: r}}, store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if got := h.s.Published().Size; got != 1 {
		t.Errorf("ledger has %d entries, want 1", got)
	}
	h.mustPut(stream("a", random(1, 8<<20)))
	h.check()
}

// cancellingReader ends the put's context when it has given so many bytes.
type cancellingReader struct {
	r      io.Reader
	after  int
	cancel func()
}

func (c *cancellingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.after -= n; c.after <= 0 {
		c.cancel()
	}
	return n, err
}
