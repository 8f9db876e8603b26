package grpcapi

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"go.uber.org/goleak"

	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// A clientNode is a store in a directory of its own with a node that serves it.
type clientNode struct {
	t     *testing.T
	dir   string
	addr  string
	store *store.Store
	stop  func()
}

// startClientNode makes a store and serves it on loopback, to anybody and for everything.
func startClientNode(t *testing.T) *clientNode {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	n := &clientNode{t: t, dir: filepath.Join(t.TempDir(), "store")}
	if err := store.Init(t.Context(), n.dir, store.InitOptions{Origin: "client.test"}); err != nil {
		t.Fatal(err)
	}
	n.start("127.0.0.1:0")
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *clientNode) start(addr string) {
	t := n.t
	t.Helper()
	s, err := store.Open(context.Background(), n.dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := NewServer(s, ServerOptions{
		Authenticate: func(context.Context) (Identity, error) {
			return Identity{Name: "test", Scope: scalev1.Scope_SCOPE_ADMIN}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	n.store, n.addr = s, l.Addr().String()
	n.stop = func() {
		n.stop = func() {}
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// dial connects to an address of a node or of a proxy before one.
func (n *clientNode) dial(addr string) *Client {
	n.t.Helper()
	c, err := Dial(n.t.Context(), addr, DialOptions{TempDir: n.t.TempDir()})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// sound stops the node and checks everything that it has stored.
func (n *clientNode) sound() {
	n.t.Helper()
	n.stop()
	sum, err := check.Run(context.Background(), n.dir, check.Options{ReadData: true, Report: func(f check.Finding) {
		if f.Severity != check.Note {
			n.t.Errorf("%v: %s", f.Severity, f.What)
		}
	}})
	if err != nil {
		n.t.Error(err)
	}
	if !sum.Sound() {
		n.t.Errorf("%d errors", sum.Errors)
	}
}

// must returns v, or ends the test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// noiseBytes returns n bytes that do not compress, different for each seed.
func noiseBytes(seed uint64, n int) []byte {
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	// A key stream: one call is quick also under the race detector.
	cipher.NewCTR(must(aes.NewCipher(key[:])), make([]byte, aes.BlockSize)).XORKeyStream(b, b)
	return b
}

// testTree makes a tree with all that a tree can hold and returns its path.
func testTree(t *testing.T, big int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for _, d := range []string{"empty", "a/b", "many", "odd\xff\nname"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, b []byte, mode fs.FileMode) {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("a.txt", []byte("before a/\n"), 0o644)
	write("a/b/c", []byte("deep\n"), 0o755)
	write("nothing", nil, 0o644)
	write("big", noiseBytes(1, big), 0o640)
	write("text", bytes.Repeat([]byte("compressible text\n"), big/18), 0o644)
	write("odd\xff\nname/\x01", []byte("odd"), 0o644)
	for i := range 600 {
		write(fmt.Sprintf("many/%03d", i), fmt.Appendf(nil, "file %d\n", i), 0o644)
	}
	for name, target := range map[string]string{"link": "a/b/c", "dangling": "../../etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// differ compares what methods of the API return.
func differ(a, b any) string {
	return cmp.Diff(a, b, cmp.Comparer(func(a, b cid.Cid) bool { return a == b }))
}

// size is how much data tests take that want much.
func size(n int) int {
	if testing.Short() {
		return n / 8
	}
	return n
}

// TestClientLikeStore asks a node and its store the same and compares the answers.
func TestClientLikeStore(t *testing.T) {
	n := startClientNode(t)
	c, ctx := n.dial(n.addr), t.Context()
	tree := testTree(t, size(8<<20))
	first := must(c.Put(ctx, []store.Input{{Name: "tree", Path: tree}, {Name: "pipe", Reader: strings.NewReader("piped")}}, store.PutOptions{}))
	if err := os.WriteFile(filepath.Join(tree, "new"), []byte("new\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	second := must(c.Put(ctx, []store.Input{{Name: "tree", Path: tree, Times: true, Parents: []int64{first[1].Entry}}}, store.PutOptions{}))
	must(c.Put(ctx, []store.Input{{Name: "empty", Reader: strings.NewReader("")}}, store.PutOptions{}))
	if second[0].Version != 2 || len(second[0].Parents) != 2 || !second[0].Times {
		t.Errorf("second put: %+v", second[0])
	}
	s := n.store

	for _, ref := range []string{
		"tree", "tree@1", "tree@-1", "tree/", "tree/a", "tree/a/", "tree/a/b/c", "tree/link", "tree/nothing", "tree/odd\xff\nname",
		"pipe", "empty", ":1", ":2/", first[0].CID.String(), first[0].EntryCID.String() + "/big", "tree/big",
	} {
		want, got := must(s.Resolve(ctx, ref)), must(c.Resolve(ctx, ref))
		if d := differ(want, got); d != "" {
			t.Errorf("resolve %q (-store +client):\n%s", ref, d)
			continue
		}
		compareList(t, "list "+ref, s.List(ctx, want), c.List(ctx, got))
		var a, b visits
		errA, errB := s.GetTree(ctx, want, &a), c.GetTree(ctx, got, &b)
		if d := differ(a.log, b.log); d != "" || errA != nil || errB != nil {
			t.Errorf("tree %q: %v, %v (-store +client):\n%s", ref, errA, errB, d)
		}
		var ca, cb bytes.Buffer
		errA, errB = s.ExportCAR(ctx, want, &ca), c.ExportCAR(ctx, got, &cb)
		if !bytes.Equal(ca.Bytes(), cb.Bytes()) || errA != nil || errB != nil {
			t.Errorf("CAR %q: %d bytes, %d bytes, %v, %v", ref, ca.Len(), cb.Len(), errA, errB)
		}
		if want.Info.Kind != dag.KindFile {
			continue
		}
		for _, r := range []*store.Range{nil, {From: 0, To: want.Info.Size}, {From: want.Info.Size / 3, To: want.Info.Size / 2}, {From: want.Info.Size, To: store.ToEnd}} {
			var a, b bytes.Buffer
			na, errA := s.Get(ctx, want, r, &a)
			nb, errB := c.Get(ctx, got, r, &b)
			if na != nb || !bytes.Equal(a.Bytes(), b.Bytes()) || errA != nil || errB != nil {
				t.Errorf("get %q %v: %d, %d bytes, %v, %v", ref, r, na, nb, errA, errB)
			}
		}
	}
	compareList(t, "datasets", s.Datasets(ctx), c.Datasets(ctx))
	compareList(t, "history", s.History(ctx, "tree"), c.History(ctx, "tree"))
	compareList(t, "entries", s.Entries(ctx, 0, 100), c.Entries(ctx, 0, 100))
	compareList(t, "entries", s.Entries(ctx, 2, 3), c.Entries(ctx, 2, 3))
	for _, name := range []string{"", "tree", "none"} {
		if d := differ(must(s.Head(ctx, name)), must(c.Head(ctx, name))); d != "" {
			t.Errorf("head of %q:\n%s", name, d)
		}
	}
	if d := differ(must(s.Totals(ctx)), must(c.Totals(ctx))); d != "" {
		t.Errorf("totals:\n%s", d)
	}
	if d := differ(must(s.Policy(ctx)), must(c.Policy(ctx))); d != "" {
		t.Errorf("policy:\n%s", d)
	}
	if d := differ(must(s.Consistency(ctx, 1, 4)), must(c.Consistency(ctx, 1, 4))); d != "" {
		t.Errorf("consistency:\n%s", d)
	}
	for _, p := range []struct {
		ref string
		o   store.ProveOptions
	}{
		{"tree", store.ProveOptions{}}, {"tree", store.ProveOptions{Manifest: true}}, {"tree/big", store.ProveOptions{}}, {"tree/empty", store.ProveOptions{}},
		{"tree/big", store.ProveOptions{Range: &store.Range{From: 100_000, To: 200_000}}}, {"pipe", store.ProveOptions{Range: &store.Range{To: 3}}}, {"tree/link", store.ProveOptions{}},
	} {
		o := must(s.Resolve(ctx, p.ref))
		want, got := must(must(s.Prove(ctx, o, p.o)).Format()), must(must(c.Prove(ctx, o, p.o)).Format())
		if !bytes.Equal(want, got) {
			t.Errorf("proofs of %s differ", p.ref)
		}
	}
	a, b := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "log")
	if errA, errB := s.ExportLog(ctx, a), c.ExportLog(ctx, b); errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if d := differ(treeOf(t, a), treeOf(t, b)); d != "" {
		t.Errorf("logs differ:\n%s", d)
	}
	n.sound()
}

// TestClientErrors asks for what is not there, and gets errors of the same classes.
func TestClientErrors(t *testing.T) {
	n := startClientNode(t)
	c, ctx := n.dial(n.addr), t.Context()
	must(n.store.Put(ctx, []store.Input{{Name: "d", Path: testTree(t, 1<<16)}}, store.PutOptions{}))
	o := must(c.Resolve(ctx, "d"))
	classes := []error{store.ErrNotFound, store.ErrInvalid, store.ErrCorrupt, store.ErrConflict, store.ErrMismatch, store.ErrMissing}
	both := map[string][2]error{}
	for _, ref := range []string{"none", "d@2", "d@-1", "d@x", "d@4294967297", "d@-4294967297", "d@99999999999999999999", "d@04294967297", ":9", ":0", ":-1", "d/none", "d/a.txt/x", "", "@", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "d/../d", "d//a"} {
		_, errA := n.store.Resolve(ctx, ref)
		_, errB := c.Resolve(ctx, ref)
		both["resolve "+ref] = [2]error{errA, errB}
	}
	dir, file := must(c.Resolve(ctx, "d/a")), must(c.Resolve(ctx, "d/a.txt"))
	for _, g := range []struct {
		o store.Object
		r *store.Range
	}{{dir, nil}, {file, &store.Range{From: 1 << 40, To: 1 << 41}}, {file, &store.Range{From: 3, To: 2}}} {
		_, errA := n.store.Get(ctx, g.o, g.r, io.Discard)
		_, errB := c.Get(ctx, g.o, g.r, io.Discard)
		both[fmt.Sprint("get ", g.o, g.r)] = [2]error{errA, errB}
	}
	for _, p := range []store.ProveOptions{{Manifest: true}, {Range: &store.Range{From: 1, To: 2}}, {}} {
		_, errA := n.store.Prove(ctx, dir, p)
		_, errB := c.Prove(ctx, dir, p)
		both[fmt.Sprint("prove ", p)] = [2]error{errA, errB}
	}
	for what, in := range map[string]store.Input{
		"bad name": {Name: "no/name", Reader: strings.NewReader("x")}, "no input": {Name: "x"}, "profile": {Name: "x", Profile: "y", Reader: strings.NewReader("x")},
		"parent": {Name: "x", Reader: strings.NewReader("x"), Parents: []int64{99}}, "known": {Name: "x", Known: o.Dataset.EntryCID},
		"root": {Name: "x", Reader: strings.NewReader("x"), Root: o.CID}, "path": {Name: "x", Path: filepath.Join(t.TempDir(), "none")},
	} {
		again := in
		if in.Reader != nil {
			again.Reader = strings.NewReader("x")
		}
		_, errA := n.store.Put(ctx, []store.Input{in}, store.PutOptions{})
		_, errB := c.Put(ctx, []store.Input{again}, store.PutOptions{})
		both["put "+what] = [2]error{errA, errB}
	}
	for _, name := range []string{"none", "no/name"} {
		_, errA := n.store.Remove(ctx, name, store.PutOptions{})
		_, errB := c.Remove(ctx, name, store.PutOptions{})
		both["remove "+name] = [2]error{errA, errB}
		for _, errA = range n.store.History(ctx, name) {
		}
		for _, errB = range c.History(ctx, name) {
		}
		both["history "+name] = [2]error{errA, errB}
	}
	_, errA := n.store.Consistency(ctx, 2, 9)
	_, errB := c.Consistency(ctx, 2, 9)
	both["consistency"] = [2]error{errA, errB}
	for what, e := range both {
		if e[0] == nil || e[1] == nil {
			t.Errorf("%s: no error: store %v, client %v", what, e[0], e[1])
			continue
		}
		for _, class := range append(classes, fs.ErrNotExist) {
			if errors.Is(e[0], class) != errors.Is(e[1], class) {
				t.Errorf("%s: %v: store %v, client %v", what, class, e[0], e[1])
			}
		}
		if errors.Is(e[1], ErrNode) || errors.Is(e[1], ErrInternal) {
			t.Errorf("%s: %v", what, e[1])
		}
	}
}

// compareList compares what two iterators yield.
func compareList[T any](t *testing.T, what string, a, b func(func(T, error) bool)) {
	t.Helper()
	var la, lb []T
	for v, err := range a {
		if err != nil {
			t.Errorf("%s: store: %v", what, err)
			return
		}
		la = append(la, v)
	}
	for v, err := range b {
		if err != nil {
			t.Errorf("%s: client: %v", what, err)
			return
		}
		lb = append(lb, v)
	}
	if d := differ(la, lb); d != "" {
		t.Errorf("%s (-store +client):\n%s", what, d)
	}
}

// visits writes down what a Visitor is given.
type visits struct {
	log []string
}

func (v *visits) Dir(path string, a dag.Attr) error {
	v.log = append(v.log, fmt.Sprintf("dir %q %v", path, a))
	return nil
}

func (v *visits) Link(path, target string, a dag.Attr) error {
	v.log = append(v.log, fmt.Sprintf("link %q %q %v", path, target, a))
	return nil
}

func (v *visits) File(path string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	return &visitedFile{v: v, head: fmt.Sprintf("file %q %v %d", path, a, size)}, nil
}

type visitedFile struct {
	bytes.Buffer
	v    *visits
	head string
}

func (f *visitedFile) Close() error {
	f.v.log = append(f.v.log, fmt.Sprintf("%s %x", f.head, sha256.Sum256(f.Bytes())))
	return nil
}

// treeOf returns the files below a directory by path.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestClientOrder gives receivedOrder every short run of paths out of a small tree, and
// compares what it takes with what is a tree in order.
func TestClientOrder(t *testing.T) {
	type e struct {
		path string
		dir  bool
	}
	all := []e{{"a", true}, {"a", false}, {"a!", false}, {"a/b", false}, {"a/b", true}, {"a/b/c", false}, {"b", false}, {"b", true}, {"b/x", false}}
	key := func(x e) string {
		if x.dir {
			return x.path + "/"
		}
		return x.path
	}
	sound := func(run []e) bool {
		dirs := map[string]bool{"": true}
		for i, x := range run {
			if i > 0 && key(x) <= key(run[i-1]) {
				return false
			}
			parent := ""
			if j := strings.LastIndexByte(x.path, '/'); j >= 0 {
				parent = x.path[:j]
			}
			if !dirs[parent] {
				return false
			}
			if x.dir {
				dirs[x.path] = true
			}
		}
		return true
	}
	var run []e
	var try func(depth int)
	count := 0
	try = func(depth int) {
		o := newReceivedOrder(store.Object{Dataset: store.Dataset{Leaves: 100, Size: 100}, Info: dag.Info{Kind: dag.KindDir}})
		err := o.next(store.Entry{Info: dag.Info{Kind: dag.KindDir}})
		for _, x := range run {
			info := dag.Info{Kind: dag.KindFile}
			if x.dir {
				info.Kind = dag.KindDir
			}
			if err == nil {
				err = o.next(store.Entry{Path: x.path, Info: info})
			}
		}
		if (err == nil) != sound(run) {
			t.Errorf("%v: %v", run, err)
		}
		count++
		if depth == 0 {
			return
		}
		for _, x := range all {
			run = append(run, x)
			try(depth - 1)
			run = run[:len(run)-1]
		}
	}
	try(4)
	if count < 5000 {
		t.Errorf("%d runs", count)
	}
	for _, bad := range []string{"", ".", "..", "a/..", "../a", "/a", "a/", "a//b", "a\x00", strings.Repeat("n", 256), strings.Repeat("d/", 2100) + "f"} {
		if checkTreePath(bad) == nil {
			t.Errorf("path %.20q passes", bad)
		}
	}
	if !slices.ContainsFunc([]string{"a", "a/b", "..a", "a\xff\n"}, func(p string) bool { return checkTreePath(p) == nil }) {
		t.Error("good paths are refused")
	}
}
