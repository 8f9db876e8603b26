package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	unixfile "github.com/ipfs/boxo/ipld/unixfs/file"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/blockstore"
	_ "github.com/ipld/go-codec-dagpb" // TraverseV1 decodes nodes with it
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	selectorparse "github.com/ipld/go-ipld-prime/traversal/selector/parse"
	flog "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	merkleproof "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// The tests of this file read what the commands wrote with the libraries that other
// programs are made of: go-car and boxo are what kubo imports and restores with,
// torchwood and the transparency-dev packages are tools for tlogs and their proofs.

// scale runs a verb that must succeed and returns its standard output.
func scale(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := runVerb(t, args...)
	if code != 0 {
		t.Fatalf("scale %q ended with exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// stringField returns a string field of a JSON object.
func stringField(t *testing.T, object, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(object), &fields); err != nil {
		t.Fatal(err)
	}
	s, ok := fields[name].(string)
	if !ok {
		t.Fatalf("no %q in %s", name, object)
	}
	return s
}

// A thing is an entry of a tree, as far as IPFS tools restore it.
type thing struct {
	Mode    fs.FileMode // of links only the type
	Mtime   time.Time
	Content [sha256.Size]byte
	Target  string
}

// strangeTree writes a tree of all that a dataset can hold.
func strangeTree(t *testing.T, top string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, data []byte, mode uint32) {
		t.Helper()
		path := filepath.Join(top, name)
		check(os.MkdirAll(filepath.Dir(path), 0o755))
		check(os.WriteFile(path, data, 0o644))
		check(unix.Chmod(path, mode))
	}
	for _, mode := range []uint32{0o400, 0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1644} {
		file(fmt.Sprintf("modes/%o", mode), []byte("mode"), mode)
	}
	for _, name := range []string{"a", "a!", "a-b", "a.b", "with space", "-dash", "#frag", "%2F", "ümläut 日本", "new\nline", "bad\xff\xfe", strings.Repeat("n", 255)} {
		file("names/"+name, []byte(name), 0o644)
	}
	big := noise(8 << 20) // of more than 256 chunks
	for _, size := range []int{0, 1, 16 << 10, 131073, 1 << 20, len(big)} {
		file(fmt.Sprint("sizes/", size), big[:size], 0o644)
	}
	file("sizes/0-0600", nil, 0o600)
	file("sizes/zeros", make([]byte, 1<<20), 0o755)
	file("deep/er/est/file", []byte("deep"), 0o644)
	for i := range 2100 { // sharded: its block would be larger than 256 KiB
		file(fmt.Sprintf("sharded/%s-%06d", strings.Repeat("x", 90), i), fmt.Append(nil, i), 0o644)
	}
	for name, mode := range map[string]uint32{"empty": 0o755, "twins/dir": 0o755, "modes/dir": 0o700, "modes/sticky": 0o1777} {
		check(os.MkdirAll(filepath.Join(top, name), 0o755))
		check(unix.Chmod(filepath.Join(top, name), mode))
	}
	// Without times this is the block of the empty directory: one digest, two codecs.
	file("twins/file", []byte("\x0a\x02\x08\x01"), 0o644)
	check(os.Mkdir(filepath.Join(top, "links"), 0o755))
	for name, target := range map[string]string{"up": "../names/a", "dangling": "no where", "absolute": "/etc/passwd", "bytes": "\xff"} {
		check(os.Symlink(target, filepath.Join(top, "links", name)))
	}
	for name, at := range map[string]time.Time{
		"sizes/1": time.Unix(-1e9, 999999999), "names/a": time.Unix(0, 0), "links/up": time.Unix(1.7e9, 1), "links": time.Unix(1.7e9, 2), "sharded": time.Unix(1.7e9, 0),
	} {
		ts := unix.NsecToTimespec(at.UnixNano())
		check(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(top, name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// onDiskThings returns what is below a directory by path, itself included.
func onDiskThings(t *testing.T, top string) map[string]thing {
	t.Helper()
	found := map[string]thing{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		x := thing{Mode: info.Mode(), Mtime: info.ModTime().UTC()}
		switch {
		case x.Mode.IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			x.Content = sha256.Sum256(b)
		case x.Mode&fs.ModeSymlink != 0:
			x.Mode = fs.ModeSymlink
			if x.Target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(top, path)
		found[rel] = x
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// boxoThings adds to found what boxo finds below a node, as kubo's get does.
func boxoThings(t *testing.T, n files.Node, path string, found map[string]thing) {
	t.Helper()
	x := thing{Mode: n.Mode(), Mtime: n.ModTime().UTC()}
	assumed := fs.FileMode(0o644)
	switch n := n.(type) {
	case *files.Symlink:
		x.Mode, x.Target = fs.ModeSymlink, n.Target
	case files.File:
		b, err := io.ReadAll(n)
		if err != nil {
			t.Fatalf("%q: %v", path, err)
		}
		x.Content = sha256.Sum256(b)
	case files.Directory:
		assumed = 0o755
		x.Mode |= fs.ModeDir
		it := n.Entries()
		for it.Next() {
			boxoThings(t, it.Node(), filepath.Join(path, it.Name()), found)
		}
		if err := it.Err(); err != nil {
			t.Fatalf("%q: %v", path, err)
		}
	}
	if x.Mode&^fs.ModeDir == 0 {
		x.Mode |= assumed
	}
	found[path] = x
}

// TestIPFSReadsCAR exports a dataset, reads it with the packages of kubo and expects
// the tree that was put, and the same file when kubo's code exports it again.
func TestIPFSReadsCAR(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SCALE_STORE", filepath.Join(dir, "store"))
	tree := filepath.Join(dir, "tree")
	strangeTree(t, tree)
	scale(t, "init")
	scale(t, "put", tree, "--mtime")
	scale(t, "put", tree, "--name", "timeless")
	want := onDiskThings(t, tree)
	for _, ref := range []string{"timeless", "tree", "tree/empty", "tree/sizes/0", "tree/sizes/8388608", "tree/links/up", "tree/sharded"} {
		name := filepath.Join(dir, strings.ReplaceAll(ref, "/", "-")+".car")
		root, err := cid.Decode(stringField(t, scale(t, "export", ref, "-o", name, "--json"), "root"))
		if err != nil {
			t.Fatal(err)
		}
		scale(t, "export", ref, "-o", name+"2")
		exported, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(name + "2"); err != nil || !bytes.Equal(again, exported) {
			t.Errorf("%s: exported twice, it differs (%v)", ref, err)
		}
		checkCAR(t, ref, exported, root)

		// With whole CIDs a block counts only under the codec that links to it.
		bs, err := blockstore.OpenReadOnly(name, blockstore.UseWholeCIDs(true))
		if err != nil {
			t.Fatal(err)
		}
		defer bs.Close()
		var reexported bytes.Buffer
		links := cidlink.DefaultLinkSystem()
		links.StorageReadOpener = func(c linking.LinkContext, l datamodel.Link) (io.Reader, error) {
			b, err := bs.Get(c.Ctx, l.(cidlink.Link).Cid)
			if err != nil {
				return nil, err
			}
			return bytes.NewReader(b.RawData()), nil
		}
		_, err = car.TraverseV1(t.Context(), &links, root, selectorparse.CommonSelector_ExploreAllRecursively, &reexported, car.AllowDuplicatePuts(false))
		if err != nil {
			t.Errorf("%s: go-car: %v", ref, err)
		} else if !bytes.Equal(reexported.Bytes(), exported) {
			t.Errorf("%s: go-car writes another CAR of the same DAG: %d bytes, not %d", ref, reexported.Len(), len(exported))
		}

		dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
		n, err := dag.Get(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		f, err := unixfile.NewUnixfsFile(t.Context(), dag, n)
		if err != nil {
			t.Fatal(err)
		}
		dataset, path, _ := strings.Cut(ref, "/")
		got := map[string]thing{}
		boxoThings(t, f, filepath.Join(".", path), got)
		wanted := map[string]thing{}
		for p, x := range want {
			if dataset == "timeless" {
				x.Mtime = time.Time{}
			}
			if path == "" || p == path || strings.HasPrefix(p, path+"/") {
				wanted[p] = x
			}
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s: what was put and what boxo reads: %s", ref, d)
		}
	}
}

// checkCAR expects a CARv1 of one root, which comes first, with every block once.
func checkCAR(t *testing.T, ref string, b []byte, root cid.Cid) {
	t.Helper()
	r, err := car.NewBlockReader(bytes.NewReader(b)) // checks digests
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != 1 || !slices.Equal(r.Roots, []cid.Cid{root}) {
		t.Errorf("%s: CAR version %d with roots %v, want 1 and %v", ref, r.Version, r.Roots, root)
	}
	seen := map[cid.Cid]bool{}
	for {
		block, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if len(seen) == 0 && block.Cid() != root {
			t.Errorf("%s: %v comes first, want %v", ref, block.Cid(), root)
		}
		if seen[block.Cid()] {
			t.Errorf("%s: %v is there twice", ref, block.Cid())
		}
		seen[block.Cid()] = true
	}
}

// A foreignLog is the log's key, as tools other than ours have it.
type foreignLog struct {
	verifier note.Verifier
	policy   torchwood.Policy
}

func newForeignLog(t *testing.T, vkey string) foreignLog {
	t.Helper()
	v, err := note.NewVerifier(strings.TrimSpace(vkey))
	if err != nil {
		t.Fatal(err)
	}
	return foreignLog{v, torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(v.Name()), torchwood.SingleVerifierPolicy(v))}
}

// TestTlogToolsReadLog exports logs on both sides of the borders of tiles and reads
// them with torchwood, and checks consistency between all of them with merkle.
func TestTlogToolsReadLog(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SCALE_STORE", filepath.Join(dir, "store"))
	l := newForeignLog(t, scale(t, "init", "--origin", "löeg.example/ñ"))
	var trees []torchwood.Checkpoint
	for _, size := range []int64{1, 2, 255, 256, 257, 513} {
		put := []string{"put"}
		for i := int64(1); i < size; i++ {
			path := filepath.Join(dir, fmt.Sprint("d", i))
			if _, err := os.Stat(path); err == nil {
				continue
			}
			if err := os.WriteFile(path, fmt.Append(nil, i), 0o644); err != nil {
				t.Fatal(err)
			}
			put = append(put, path)
		}
		if len(put) > 1 {
			scale(t, put...)
		}
		out := filepath.Join(dir, fmt.Sprint("log", size))
		scale(t, "log", "export", out)
		c := l.readLog(t, out)
		if c.N != size {
			t.Errorf("exported %d entries, want %d", c.N, size)
		}
		trees = append(trees, c)
	}
	for i, from := range trees {
		for _, to := range trees[i:] {
			var p struct{ Hashes [][]byte }
			if err := json.Unmarshal([]byte(scale(t, "log", "consistency", fmt.Sprint(from.N), fmt.Sprint(to.N), "--json")), &p); err != nil {
				t.Fatal(err)
			}
			if err := merkleproof.VerifyConsistency(rfc6962.DefaultHasher, uint64(from.N), uint64(to.N), p.Hashes, from.Hash[:], to.Hash[:]); err != nil {
				t.Errorf("%d to %d: %v", from.N, to.N, err)
			}
		}
	}
}

// readLog reads all entries of an exported log and checks them against its tree.
func (l foreignLog) readLog(t *testing.T, dir string) torchwood.Checkpoint {
	t.Helper()
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := torchwood.VerifyCheckpoint(signed, l.policy)
	if err != nil {
		t.Fatal(err)
	}
	if other, rest, _, err := flog.ParseCheckpoint(signed, l.verifier.Name(), l.verifier); err != nil || other.Size != uint64(c.N) || len(rest) > 0 {
		t.Errorf("formats reads %+v, %q, %v", other, rest, err)
	}
	tiles, err := torchwood.NewTileFS(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(tiles)
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Split(strings.TrimSpace(scale(t, "log", "entries", "--json", "--to", fmt.Sprint(c.N))), "\n")
	n := int64(0)
	for i, block := range client.AllEntries(t.Context(), c.Tree, 0) { // checks inclusion
		var want struct{ Block []byte }
		if err := json.Unmarshal([]byte(listed[i]), &want); err != nil {
			t.Fatal(err)
		}
		if i != n || !bytes.Equal(block, want.Block) {
			t.Errorf("entry %d, want %d, of %d bytes: not the one listed", i, n, len(block))
		}
		n++
	}
	if err := client.Err(); err != nil || n != c.N {
		t.Errorf("read %d of %d entries: %v", n, c.N, err)
	}
	return c
}

// TestTlogToolsReadProofs checks the log part of proofs of every scope.
func TestTlogToolsReadProofs(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SCALE_STORE", filepath.Join(dir, "store"))
	l := newForeignLog(t, scale(t, "init", "--origin", "log.example"))
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"big": noise(1 << 20), "nothing": nil} {
		if err := os.WriteFile(filepath.Join(tree, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("big", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tree, "void"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"before", "tree", "after", "last"} { // so that there is a path to the root
		scale(t, "put", tree, "--name", name)
	}
	var entry struct{ Block []byte }
	if err := json.Unmarshal([]byte(scale(t, "log", "entries", "--from", "2", "--to", "3", "--json")), &entry); err != nil {
		t.Fatal(err)
	}
	record := tlog.RecordHash(entry.Block)
	for _, args := range [][]string{
		{"tree"}, {"tree", "--manifest"}, {"tree/big"}, {"tree/nothing"}, {"tree/link"}, {"tree/void"},
		{"tree/big", "--range", "0:1"}, {"tree/big", "--range", "500K:600K"}, {"tree/big", "--range", "0:1M"},
	} {
		b := []byte(scale(t, append([]string{"prove"}, args...)...))
		if err := torchwood.VerifyProof(l.policy, record, b); err != nil {
			t.Errorf("%q: torchwood: %v", args, err)
		}
		var wrong *torchwood.VerifyRecordError
		if err := torchwood.VerifyProof(l.policy, tlog.RecordHash(nil), b); !errors.As(err, &wrong) {
			t.Errorf("%q: torchwood, of another record: %v", args, err)
		}
		var p proof.TLogProof
		if err := p.Unmarshal(b); err != nil {
			t.Errorf("%q: formats: %v", args, err)
			continue
		}
		if !bytes.Equal(p.Marshal(), b) {
			t.Errorf("%q: formats writes it differently", args)
		}
		c, _, _, err := flog.ParseCheckpoint(p.Checkpoint, l.verifier.Name(), l.verifier)
		if err != nil {
			t.Errorf("%q: checkpoint: %v", args, err)
			continue
		}
		path := make([][]byte, len(p.Hashes))
		for i := range p.Hashes {
			path[i] = p.Hashes[i][:]
		}
		if err := merkleproof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, record[:], path, c.Hash); err != nil || p.Index != 2 {
			t.Errorf("%q: merkle, entry %d: %v", args, p.Index, err)
		}
	}
}
