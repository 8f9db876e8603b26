package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

// A scatteredStore has two trees with the same files: "sealed" names them in the order in
// which they lie in frames, "moved" in another.
type scatteredStore struct {
	*Store
	dir   string
	moved [][]byte // the files of moved, in order

	mu    sync.Mutex
	reads map[pack.Loc]int // of frames
}

// scatteredPacks counts what is read.
type scatteredPacks struct {
	pack.Store
	s *scatteredStore
}

func (p scatteredPacks) count(loc pack.Loc) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.reads[loc]++
}

func (p scatteredPacks) ReadFrame(ctx context.Context, loc pack.Loc, buf []byte) (pack.Frame, []byte, error) {
	p.count(loc)
	return p.Store.ReadFrame(ctx, loc, buf)
}

func (p scatteredPacks) ReadPart(ctx context.Context, loc pack.Loc, from, to uint32, buf []byte) (pack.Frame, bool, []byte, error) {
	p.count(loc)
	return p.Store.ReadPart(ctx, loc, from, to, buf)
}

// newScatteredStore makes one that is empty.
func newScatteredStore(t *testing.T) *scatteredStore {
	t.Helper()
	// How much a batch may weigh goes by the processors.
	procs := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	s := &scatteredStore{dir: filepath.Join(t.TempDir(), "store"), reads: map[pack.Loc]int{}}
	fatal(t, Init(t.Context(), s.dir, InitOptions{}))
	s.open(t)
	t.Cleanup(func() { s.Close() })
	return s
}

// scattered makes a store of so many files of 8 KiB. What follows one another in moved are
// runs of that many.
func scattered(t *testing.T, files, run int, content func(i int) []byte) *scatteredStore {
	t.Helper()
	s := newScatteredStore(t)
	runs := rand.New(rand.NewPCG(1, 2)).Perm(files / run)
	sealed := make([][]byte, len(runs)*run)
	for i := range sealed {
		sealed[i] = content(i)
	}
	for _, at := range runs {
		s.moved = append(s.moved, sealed[at*run:][:run]...)
	}
	s.put(t, Input{Name: "sealed", Source: &fileTree{files: sealed}})
	s.put(t, Input{Name: "moved", Source: &fileTree{files: s.moved}})
	return s
}

// A fileTree is the source of a tree of files that are named by their numbers.
type fileTree struct {
	files [][]byte
	next  int // 0 is the root
}

func (n *fileTree) Next(context.Context) (*SourceEntry, error) {
	i := n.next
	n.next++
	switch {
	case i == 0:
		return &SourceEntry{Kind: dag.KindDir, Attr: dag.Attr{Mode: 0o755}}, nil
	case i > len(n.files):
		return nil, io.EOF
	}
	return &SourceEntry{Path: fmt.Sprintf("%05d", i), Kind: dag.KindFile, Attr: dag.Attr{Mode: 0o644}, Body: bytes.NewReader(n.files[i-1])}, nil
}

func (s *scatteredStore) open(t *testing.T) {
	t.Helper()
	var err error
	s.Store, err = Open(t.Context(), s.dir, Options{Cache: 1, WrapPacks: func(p pack.Store) pack.Store { return scatteredPacks{p, s} }})
	fatal(t, err)
}

// counts returns how many frames were read, and how often together, since it was last asked.
func (s *scatteredStore) counts() (frames, reads int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.reads {
		reads += n
	}
	frames = len(s.reads)
	clear(s.reads)
	return frames, reads
}

func (s *scatteredStore) put(t *testing.T, in ...Input) {
	t.Helper()
	_, err := s.Put(t.Context(), in, PutOptions{})
	fatal(t, err)
}

func (s *scatteredStore) get(t *testing.T, ctx context.Context, name string, v Visitor) error {
	t.Helper()
	o, err := s.Resolve(t.Context(), name)
	fatal(t, err)
	return s.GetTree(ctx, o, v)
}

// checkIdle checks that nobody uses memory, and that nothing of the share of those who read
// scattered data is missing.
func (s *scatteredStore) checkIdle(t *testing.T) {
	t.Helper()
	s.frames.checkIdle(t)
	if s.frames.max != s.opt.Cache {
		t.Errorf("the cache may take %d bytes, want %d", s.frames.max, s.opt.Cache)
	}
	if !s.wide.TryAcquire(DefaultWide) {
		t.Error("somebody still has wide batches")
		return
	}
	s.wide.Release(DefaultWide)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A fileList is the bytes of the files of a tree. At is called before each.
type fileList struct {
	files []*bytes.Buffer
	at    func(i int) error
}

func (l *fileList) Dir(string, dag.Attr) error          { return nil }
func (l *fileList) Link(string, string, dag.Attr) error { return nil }
func (l *fileList) File(string, dag.Attr, uint64) (io.WriteCloser, error) {
	if l.at != nil {
		if err := l.at(len(l.files)); err != nil {
			return nil, err
		}
	}
	l.files = append(l.files, new(bytes.Buffer))
	return openFile{l.files[len(l.files)-1]}, nil
}

type openFile struct{ *bytes.Buffer }

func (openFile) Close() error { return nil }

// same reports how many of the first files are those.
func (l *fileList) same(want [][]byte) int {
	for i, f := range l.files {
		if i == len(want) || !bytes.Equal(f.Bytes(), want[i]) {
			return i
		}
	}
	return len(l.files)
}

// lines is a file of 8 KiB that compresses, and noise one that does not.
func lines(i int) []byte {
	var b bytes.Buffer
	for b.Len() < 8<<10 {
		fmt.Fprintf(&b, "line %d of file %d\n", b.Len(), i)
	}
	return b.Bytes()
}

func noise(i int) []byte {
	b := make([]byte, 8<<10)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), 1}).Read(b)
	return b
}

// manyFiles are more than fit into a batch that is not wide, and into the first one that is.
func manyFiles() int {
	if testing.Short() {
		return 3 << 10
	}
	return 8 << 10
}

// Files that are named in another order than they were sealed in come back without reading a
// frame for each of them, and so does an export.
func TestReadMovedFiles(t *testing.T) {
	for what, content := range map[string]func(int) []byte{"text": lines, "random": noise} {
		t.Run(what, func(t *testing.T) {
			s := scattered(t, manyFiles(), 1, content)
			few := func(what string) {
				t.Helper()
				if frames, reads := s.counts(); frames < 4 || reads > 4*frames {
					t.Errorf("%s: %d frames were read %d times", what, frames, reads)
				}
			}
			var got fileList
			if err := s.get(t, t.Context(), "moved", &got); err != nil || got.same(s.moved) != len(s.moved) {
				t.Errorf("%d files of %d are right, %v", got.same(s.moved), len(s.moved), err)
			}
			few("tree")
			o, err := s.Resolve(t.Context(), "moved")
			fatal(t, err)
			fatal(t, s.ExportCAR(t.Context(), o, io.Discard))
			few("export")
			s.checkIdle(t)
		})
	}
}

// A file that is in the frames of many versions comes back without reading them for each
// chunk, as plain bytes and in frames.
func TestReadManyVersions(t *testing.T) {
	s := newScatteredStore(t)
	var data []byte
	for i := 0; len(data) < 16<<20; i++ {
		data = append(data, lines(i)...)
	}
	r := rand.New(rand.NewPCG(3, 4))
	const versions = 10
	for range versions {
		s.put(t, Input{Name: "x", Reader: bytes.NewReader(data)})
		for range 60 { // with what does not compress, so that frames of these are not given
			at := r.IntN(len(data) - 16<<10)
			copy(data[at:], slices.Concat(noise(r.Int()), noise(r.Int())))
		}
	}
	s.put(t, Input{Name: "x", Reader: bytes.NewReader(data)})
	o, err := s.Resolve(t.Context(), "x")
	fatal(t, err)
	w := &plainWriter{}
	for what, get := range map[string]func() error{
		"plain":  func() error { _, err := s.Get(t.Context(), o, nil, w); return err },
		"sealed": func() error { return s.GetSealed(t.Context(), o, Range{To: o.Info.Size}, pack.Loc{}, w) },
	} {
		w.Reset()
		s.counts()
		if err := get(); err != nil || !bytes.Equal(w.Bytes(), data) {
			t.Errorf("%s: %d bytes of %d, %v", what, w.Len(), len(data), err)
		}
		if frames, reads := s.counts(); frames < versions || reads > 4*frames {
			t.Errorf("%s: %d frames were read %d times", what, frames, reads)
		}
	}
	s.checkIdle(t)
}

// A plainWriter is for those who get hardly any of a frame.
type plainWriter struct{ bytes.Buffer }

func (*plainWriter) Sealed(*SealedRun) error { return errors.New("a frame of scattered chunks") }

// Of scattered data everything before a damaged chunk is given, and nothing of it. What was
// put again is found where it lies now.
func TestReadMovedDamage(t *testing.T) {
	const run = 16 // so that the lists of frames are read, which have the chunk where it was
	s := scattered(t, manyFiles(), run, noise)
	path := filepath.Join(s.dir, packsDir, pack.Name(1))
	stored, err := os.ReadFile(path)
	fatal(t, err)
	bad := len(s.moved)*3/4/run*run + run/2
	at := bytes.Index(stored, s.moved[bad])
	if at < 0 {
		t.Fatal("random bytes are not stored as they are")
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fatal(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{stored[at+100] ^ 1}, int64(at+100))
	fatal(t, err)

	lostAt := func(bad int) {
		t.Helper()
		var got fileList
		err := s.get(t, t.Context(), "moved", &got)
		var lost *ChunkError
		// The file itself has begun.
		if !errors.Is(err, ErrCorrupt) || !errors.As(err, &lost) || len(got.files) != bad+1 || got.same(s.moved) != bad || got.files[bad].Len() != 0 {
			t.Errorf("%d files of which %d are right, %v, want %d and ErrCorrupt", len(got.files), got.same(s.moved), err, bad)
		}
		s.checkIdle(t)
	}
	forget := func(i int) {
		t.Helper()
		var rows kv.Batch
		rows.Delete(digestKey(rowChunk, sha256.Sum256(s.moved[i])))
		fatal(t, s.kv.Commit(t.Context(), &rows))
	}
	lostAt(bad)
	forget(bad)
	fatal(t, s.Close())
	s.open(t)
	lostAt(bad)
	s.put(t, Input{Name: "again", Reader: bytes.NewReader(s.moved[bad])})
	var got fileList
	if err := s.get(t, t.Context(), "moved", &got); err != nil || got.same(s.moved) != len(s.moved) {
		t.Errorf("put again: %d files of %d are right, %v", got.same(s.moved), len(s.moved), err)
	}
	s.checkIdle(t)
	// Where no list leads, the index says that it is lost.
	forget(bad - run/2)
	lostAt(bad - run/2)
}

// However a read of scattered data ends, its memory is given back.
func TestReadMovedGivesBack(t *testing.T) {
	s := scattered(t, manyFiles(), 1, noise)
	enough := errors.New("enough")
	for _, most := range []int{1, 10, 1000, len(s.moved) - 1} {
		ctx, cancel := context.WithCancel(t.Context())
		stop := func(i int) error {
			if i == most {
				return enough
			}
			return nil
		}
		if err := s.get(t, ctx, "moved", &fileList{at: stop}); !errors.Is(err, enough) {
			t.Errorf("an error after %d files: %v", most, err)
		}
		s.checkIdle(t)
		stop = func(i int) error {
			if i == most {
				cancel()
			}
			return nil
		}
		if err := s.get(t, ctx, "moved", &fileList{at: stop}); most < len(s.moved)/2 && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d files: %v", most, err)
		}
		cancel()
		s.checkIdle(t)
	}
}

// Reads that stand still with all the memory that there is for scattered data keep nobody
// from reading it.
func TestReadMovedTogether(t *testing.T) {
	s := scattered(t, manyFiles(), 1, lines)
	const readers = 3
	var waiting, all sync.WaitGroup
	goOn := make(chan struct{})
	check := func(who string, l *fileList, err error) {
		if err != nil || l.same(s.moved) != len(s.moved) {
			t.Errorf("%s: %d files of %d are right, %v", who, l.same(s.moved), len(s.moved), err)
		}
	}
	waiting.Add(readers)
	for i := range readers {
		all.Go(func() {
			l := &fileList{at: func(i int) error {
				if i == len(s.moved)/3 {
					waiting.Done()
					<-goOn
				}
				return nil
			}}
			err := s.get(t, t.Context(), "moved", l)
			check(fmt.Sprintf("reader %d", i), l, err)
		})
	}
	waiting.Wait()
	if s.wide.TryAcquire(DefaultWide / 4) {
		t.Error("there is memory left")
		s.wide.Release(DefaultWide / 4)
	}
	one := &fileList{}
	check("the one who does not stand still", one, s.get(t, t.Context(), "moved", one))
	close(goOn)
	all.Wait()
	s.checkIdle(t)
}

// What lies in the order of the frames is read as it is: no batch is wide, and no frame is read
// again.
func TestReadInOrder(t *testing.T) {
	s := newScatteredStore(t)
	data := make([]byte, 48<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	s.put(t, Input{Name: "x", Reader: bytes.NewReader(data)})
	o, err := s.Resolve(t.Context(), "x")
	fatal(t, err)
	var got bytes.Buffer
	w := writerFunc(func(p []byte) (int, error) {
		if !s.wide.TryAcquire(DefaultWide) {
			return 0, errors.New("a batch is wide")
		}
		s.wide.Release(DefaultWide)
		return got.Write(p)
	})
	if _, err := s.Get(t.Context(), o, nil, w); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes of %d, %v", got.Len(), len(data), err)
	}
	if frames, reads := s.counts(); reads > frames+frames/4 {
		t.Errorf("%d frames were read %d times", frames, reads)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestWideShares(t *testing.T) {
	for wide, want := range map[int64][2]int{
		DefaultWide: {96 << 20, 32 << 20}, 64 << 20: {48 << 20, 16 << 20}, 16 << 20: {12 << 20, 4 << 20}, 16<<20 - 1: {}, -1: {},
	} {
		if most, least := (&Options{Wide: wide}).wideShares(); most != want[0] || least != want[1] {
			t.Errorf("of %d: %d and %d, want %v", wide, most, least, want)
		}
	}
}
