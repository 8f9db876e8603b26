package storetest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/store/pack"
)

// tornTail dies with frames behind the tail, which are gone once another frame
// is appended.
func (s *packSuite) tornTail() {
	for _, more := range []int{1, 5, 60} {
		s.append(7)
		tail, n := s.sync(), len(s.all)
		s.append(more)
		s.check()
		s.reopen(tail)
		if got := s.p.Tail(); got != tail {
			s.Errorf("reopened with the tail %+v, want %+v", got, tail)
		}
		s.locs, s.all = s.locs[:n], s.all[:n]
		s.append(1)
		s.check()
		s.reopen(s.sync())
		s.check()
	}
	// Nothing was ever recorded.
	s.reopen(pack.Tail{})
	s.locs, s.all = nil, nil
	s.append(3)
	s.check()
	packs, err := s.p.List()
	if err != nil || !slices.Equal(packs, []uint32{1}) {
		s.Errorf("packs %v, %v, want 1", packs, err)
	}
}

// lost has less in the packs than the tail says.
func (s *packSuite) lost() {
	for _, lose := range []func(path string, last pack.Loc) error{
		func(path string, last pack.Loc) error { return os.Truncate(path, int64(last.Off)+int64(last.Len)-1) },
		func(path string, last pack.Loc) error { return os.Truncate(path, 3) },
		func(path string, _ pack.Loc) error { return os.Remove(path) },
	} {
		s.append(3)
		tail := s.sync()
		s.close()
		last := s.locs[len(s.locs)-1]
		if err := lose(filepath.Join(s.dir, pack.Name(tail.Pack)), last); err != nil {
			s.Fatal(err)
		}
		s.open(tail)
		if _, _, err := s.p.ReadFrame(s.ctx, last, nil); !errors.Is(err, pack.ErrCorrupt) {
			s.Errorf("reading what is lost: %v, want ErrCorrupt", err)
		}
		lost := len(s.all)
		s.append(2)
		if s.locs[lost].Pack <= tail.Pack {
			s.Errorf("a frame took the place of a lost one: %+v", s.locs[lost])
		}
		if _, _, err := s.p.ReadFrame(s.ctx, last, nil); !errors.Is(err, pack.ErrCorrupt) {
			s.Errorf("reading what is lost: %v, want ErrCorrupt", err)
		}
		for i := lost; i < len(s.all); i++ {
			if f, _, err := s.p.ReadFrame(s.ctx, s.locs[i], nil); err != nil || diff(s.all[i], f) != "" {
				s.Errorf("frame %d, after the loss: %v", i, err)
			}
		}
		s.sync()
	}
}

// damage flips every byte of a pack in turn. No frame is ever read wrongly, and
// a scan names what is damaged and finds the rest.
func (s *packSuite) damage() {
	for range 4 {
		f := frame(s.rng, 1+s.rng.IntN(3), 40)
		loc, err := s.p.Append(s.ctx, f)
		if err != nil {
			s.Fatal(err)
		}
		s.locs, s.all = append(s.locs, loc), append(s.all, f)
	}
	s.sync()
	path := filepath.Join(s.dir, pack.Name(1))
	whole, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 1 << s.rng.IntN(8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			s.Fatal(err)
		}
		hit := -1
		for i, loc := range s.locs {
			if uint64(at) >= loc.Off && uint64(at) < loc.Off+uint64(loc.Len) {
				hit = i
			}
			f, _, err := s.p.ReadFrame(s.ctx, loc, nil)
			if i == hit && !errors.Is(err, pack.ErrCorrupt) {
				s.Errorf("byte %d of frame %d: %v, want ErrCorrupt", at, i, err)
			} else if i != hit && (err != nil || diff(s.all[i], f) != "") {
				s.Errorf("byte %d, not of frame %d: %v", at, i, err)
			}
			// In the body of a frame that is stored as it is, damage is for digests to find.
			from, to := uint32(1), s.all[i].PlainSize
			p, part, _, err := s.p.ReadPart(s.ctx, loc, from, to, nil)
			body := uint64(at) >= loc.Off+uint64(loc.Len)-uint64(s.all[i].PlainSize)
			if i == hit && !(part && body) && !errors.Is(err, pack.ErrCorrupt) {
				s.Errorf("byte %d of frame %d, in part: %v, want ErrCorrupt", at, i, err)
			} else if i == hit && part && body && (err != nil || len(p.Sealed) != int(to-from)) {
				s.Errorf("byte %d of the body of frame %d: %v", at, i, err)
			} else if i != hit && (err != nil || diffPart(s.all[i], p, part, from, to) != "") {
				s.Errorf("byte %d, not of frame %d, in part: %v", at, i, err)
			}
			list, _, err := s.p.ReadList(s.ctx, loc, nil)
			behind := uint64(at) >= loc.Off+uint64(loc.Len)-uint64(len(s.all[i].Sealed))
			if i == hit && !behind && !errors.Is(err, pack.ErrCorrupt) {
				s.Errorf("byte %d of frame %d, its list: %v, want ErrCorrupt", at, i, err)
			} else if (i != hit || behind) && (err != nil || !slices.Equal(list, s.all[i].Chunks)) {
				s.Errorf("byte %d, not of the list of frame %d: %v", at, i, err)
			}
		}
		var good, bad []pack.Loc
		for got, err := range s.p.Scan(s.ctx, 1) {
			if err == nil {
				good = append(good, got.Loc)
			} else if bad = append(bad, got.Loc); !errors.Is(err, pack.ErrCorrupt) {
				s.Fatalf("byte %d: scan: %v", at, err)
			}
		}
		want := slices.Clone(s.locs)
		wantBad := []pack.Loc{{Pack: 1, Len: uint32(s.locs[0].Off)}}
		if hit >= 0 {
			want, wantBad = slices.Delete(want, hit, hit+1), s.locs[hit:hit+1]
		}
		if d := cmp.Diff(want, good) + cmp.Diff(wantBad, bad); d != "" {
			s.Errorf("byte %d: the scan found: (-want +got)\n%s", at, d)
		}
		if s.Failed() {
			return
		}
	}
}

// places reads where no frame is.
func (s *packSuite) places() {
	s.append(30)
	for range 2000 {
		loc := s.locs[s.rng.IntN(len(s.locs))]
		switch s.rng.IntN(6) {
		case 0:
			loc.Pack += 1 + uint32(s.rng.IntN(3))
		case 1:
			loc.Off += 1 + uint64(s.rng.IntN(3000))
		case 2:
			loc.Off = s.rng.Uint64()
		case 3:
			loc.Len += 1 + uint32(s.rng.IntN(3000))
		case 4:
			loc.Len -= 1 + uint32(s.rng.IntN(int(loc.Len)))
		case 5:
			loc.Len = s.rng.Uint32()
		}
		if slices.Contains(s.locs, loc) {
			continue
		}
		if _, _, err := s.p.ReadFrame(s.ctx, loc, nil); !errors.Is(err, pack.ErrCorrupt) {
			s.Fatalf("ReadFrame(%+v) = %v, want ErrCorrupt", loc, err)
		}
		if _, _, _, err := s.p.ReadPart(s.ctx, loc, 0, 1, nil); !errors.Is(err, pack.ErrCorrupt) {
			s.Fatalf("ReadPart(%+v) = %v, want ErrCorrupt", loc, err)
		}
		if _, _, err := s.p.ReadList(s.ctx, loc, nil); !errors.Is(err, pack.ErrCorrupt) {
			s.Fatalf("ReadList(%+v) = %v, want ErrCorrupt", loc, err)
		}
	}
	for _, err := range s.p.Scan(s.ctx, 99) {
		if !errors.Is(err, pack.ErrCorrupt) {
			s.Errorf("scan of a pack that is not there: %v", err)
		}
	}
}
