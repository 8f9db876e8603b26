package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

// A harness is a store in a temporary directory with what a test does to it.
type harness struct {
	t   *testing.T
	ctx context.Context
	dir string
	opt store.Options
	s   *store.Store
}

func newHarness(t *testing.T, o store.Options) *harness {
	t.Helper()
	h := &harness{t: t, ctx: t.Context(), dir: filepath.Join(t.TempDir(), "store"), opt: o}
	if err := store.Init(h.ctx, h.dir, store.InitOptions{Origin: "test.example/log"}); err != nil {
		t.Fatal(err)
	}
	h.open()
	t.Cleanup(func() { h.close() })
	return h
}

func (h *harness) open() {
	h.t.Helper()
	s, err := store.Open(h.ctx, h.dir, h.opt)
	if err != nil {
		h.t.Fatal(err)
	}
	h.s = s
}

func (h *harness) close() {
	h.t.Helper()
	if h.s != nil {
		// A store that was stopped by a fault may say so once more.
		h.s.Close()
		h.s = nil
	}
}

func (h *harness) reopen() {
	h.t.Helper()
	h.close()
	h.open()
}

func (h *harness) put(in ...store.Input) ([]store.PutResult, error) {
	return h.s.Put(h.ctx, in, store.PutOptions{})
}

func (h *harness) mustPut(in ...store.Input) []store.PutResult {
	h.t.Helper()
	res, err := h.put(in...)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

func stream(name string, b []byte) store.Input {
	return store.Input{Name: name, Reader: bytes.NewReader(b)}
}

func (h *harness) resolve(ref string) store.Object {
	h.t.Helper()
	o, err := h.s.Resolve(h.ctx, ref)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *harness) get(ref string) []byte {
	h.t.Helper()
	var b bytes.Buffer
	if _, err := h.s.Get(h.ctx, h.resolve(ref), nil, &b); err != nil {
		h.t.Fatal(err)
	}
	return b.Bytes()
}

// tree gives a dataset back as path -> description with content.
func (h *harness) tree(ref string) map[string]string {
	h.t.Helper()
	v := treeMap{}
	if err := h.s.GetTree(h.ctx, h.resolve(ref), v); err != nil {
		h.t.Fatal(err)
	}
	return v
}

type treeMap map[string]string

func (m treeMap) Dir(p string, a dag.Attr) error {
	m[p] = fmt.Sprintf("dir %04o", a.Mode)
	return nil
}

func (m treeMap) Link(p, target string, a dag.Attr) error {
	m[p] = "link " + target
	return nil
}

func (m treeMap) File(p string, a dag.Attr, size uint64) (io.WriteCloser, error) {
	return &treeFile{m: m, path: p, mode: a.Mode, size: size}, nil
}

type treeFile struct {
	bytes.Buffer
	m    treeMap
	path string
	mode uint32
	size uint64
}

func (f *treeFile) Close() error {
	if uint64(f.Len()) != f.size {
		return fmt.Errorf("%s announced with %d bytes, has %d", f.path, f.size, f.Len())
	}
	f.m[f.path] = fmt.Sprintf("file %04o %s", f.mode, f.String())
	return nil
}

// check lets the independent checker read the whole directory.
func (h *harness) check() {
	h.t.Helper()
	h.close()
	lock, err := store.AcquireLock(h.ctx, h.dir, 0, "test")
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = check.Run(h.ctx, h.dir, check.Options{ReadData: true, Report: func(f check.Finding) {
		if f.Severity != check.Note {
			h.t.Errorf("check: %+v", f)
		}
	}})
	if err != nil {
		h.t.Errorf("check: %v", err)
	}
	if err := lock.Release(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

// verify proves o and verifies the proof from its bytes alone.
func (h *harness) verify(ref string, opt store.ProveOptions) *proof.Verified {
	h.t.Helper()
	p, err := h.s.Prove(h.ctx, h.resolve(ref), opt)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := p.Format()
	if err != nil {
		h.t.Fatal(err)
	}
	back, err := proof.Parse(b)
	if err != nil {
		h.t.Fatal(err)
	}
	policy, err := proof.TrustKey(h.s.VerifierKey())
	if err != nil {
		h.t.Fatal(err)
	}
	v, err := back.Verify(proof.Trust{Policy: policy})
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// random returns n bytes that do not compress, the same for each seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// text returns n bytes that compress.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of the text number %d: %x\n", b.Len(), seed, r.Uint32N(1000))
	}
	return b.Bytes()[:n]
}

// A file of a tree made by a test; a directory when name ends in a slash, a link
// when link is set.
type file struct {
	name string
	mode fs.FileMode
	data []byte
	link string
}

func makeTree(t *testing.T, files ...file) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		p := filepath.Join(root, f.name)
		mode := f.mode
		if mode == 0 {
			mode = 0o644
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case strings.HasSuffix(f.name, "/"):
			err = os.MkdirAll(p, 0o755)
			if f.mode != 0 {
				err = os.Chmod(p, f.mode)
			}
		case f.link != "":
			err = os.Symlink(f.link, p)
		default:
			if err = os.WriteFile(p, f.data, 0o600); err == nil {
				err = os.Chmod(p, mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
