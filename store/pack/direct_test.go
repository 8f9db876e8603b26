package pack

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/compress"
)

// TestDirect appends frames of many sizes, large ones between small ones, in several
// packs. They are read at once and when the packs have been opened anew, whichever way
// they were written.
func TestDirect(t *testing.T) {
	for name, refused := range map[string]func(p *Files, i int){
		"as it comes":   func(*Files, int) {},
		"never":         func(p *Files, _ int) { p.d.off = true },
		"not any more":  func(p *Files, i int) { p.d.off = i > 20 },
		"not after all": misalign,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Target: 8 << 20}
			p := openFiles(t, dir, o, Tail{})
			rng := rand.New(rand.NewPCG(1, 2))
			seed := rand.NewChaCha8([32]byte{1})
			n := 60
			if testing.Short() {
				n = 25
			}
			var frames []Frame
			var locs []Loc
			for i := range n {
				sealed := 1 + rng.IntN(3*directAlign)
				switch i % 4 {
				case 0, 1:
					sealed = directMin + rng.IntN(1<<20)
				case 2: // ends with its page
					sealed = directMin + directAlign - int(p.Tail().End+directMin+frameFixed+chunkEntry)%directAlign
				}
				frames = append(frames, randomFrame(seed, 1, compress.MaxPlain, sealed))
				refused(p, i)
				locs = append(locs, mustAppend(t, p, frames[i]))
				wantFrame(t, p, locs[i], frames[i])
				if i%7 == 0 {
					if err := p.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range frames {
				wantFrame(t, p, locs[i], frames[i])
			}
			if err := p.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			tail := p.Tail()
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}

			again := openFiles(t, dir, o, tail)
			for i := range frames {
				wantFrame(t, again, locs[i], frames[i])
			}
			ns, err := again.List()
			if err != nil || len(ns) < 2 {
				t.Fatalf("%d packs, %v", len(ns), err)
			}
			found := 0
			for _, n := range ns {
				for s, err := range again.Scan(t.Context(), n) {
					if err != nil || s.Loc != locs[found] {
						t.Fatalf("frame %d is found at %+v, %v", found, s.Loc, err)
					}
					found++
				}
			}
			if found != len(frames) {
				t.Errorf("the scan finds %d frames of %d", found, len(frames))
			}
			// A scan that counts on the tail would not see what is behind a full pack.
			if fi, err := os.Stat(again.path(ns[0])); err != nil || fi.Size() != int64(last(locs, ns[0])) {
				t.Errorf("%v, %v: the first pack should end with its last frame, at %d", fi.Size(), err, last(locs, ns[0]))
			}
		})
	}
}

// misalign has the system refuse direct writes from the tenth frame on, as some do only
// when they see one.
func misalign(p *Files, i int) {
	if i == 10 && p.d.mem != nil {
		p.d.buf = p.d.mem[1:]
	}
}

// last returns where the last frame of a pack ends.
func last(locs []Loc, pack uint32) (end uint64) {
	for _, l := range locs {
		if l.Pack == pack {
			end = max(end, l.Off+uint64(l.Len))
		}
	}
	return end
}

// TestDirectMoved puts another file where the pack was: it is not written to.
func TestDirectMoved(t *testing.T) {
	for name, put := range map[string]func(other, pack string) error{"link": os.Symlink, "file": os.Link} {
		p := openFiles(t, t.TempDir(), Options{}, Tail{})
		seed := rand.NewChaCha8([32]byte{1})
		small := randomFrame(seed, 1, 100, 100)
		loc := mustAppend(t, p, small)
		pack, other := p.w.Name(), filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(other, []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Rename(pack, pack+".moved"), put(other, pack)); err != nil {
			t.Fatal(err)
		}
		large := randomFrame(seed, 1, compress.MaxPlain, 2*directMin)
		at := mustAppend(t, p, large)
		if b, err := os.ReadFile(other); err != nil || string(b) != "kept" {
			t.Errorf("%s: %d bytes are in the other file, %v", name, len(b), err)
		}
		if err := errors.Join(os.Remove(pack), os.Rename(pack+".moved", pack)); err != nil {
			t.Fatal(err)
		}
		wantFrame(t, p, loc, small)
		wantFrame(t, p, at, large)
	}
}
