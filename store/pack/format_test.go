package pack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/compress"
)

// The numbers and bytes of FORMAT.md. They never change.
func TestVectors(t *testing.T) {
	if frameMagic != 0xf5ca1e5a || fileMagic != "SCALEpak" || fileVersion != 1 || frameVersion != 1 ||
		compress.Raw != 0 || compress.Zstd != 1 || MaxChunks != 16384 || MaxSealed != 4<<20 {
		t.Error("a number of the format has changed")
	}
	const fileHex = "5343414c4570616b 00000001 00000001 00000000 687545f2"
	const frameHex = "f5ca1e5a 01 00 0000 00000005 00000005 00000002 9a71bb4c 16571b02 " +
		"1111111111111111111111111111111111111111111111111111111111111111 00000003 " +
		"2222222222222222222222222222222222222222222222222222222222222222 00000002 " +
		"68656c6c6f"
	f := Frame{PlainSize: 5, Sealed: []byte("hello"), Chunks: []Chunk{{Size: 3}, {Size: 2}}}
	for i := range 32 {
		f.Chunks[0].Digest[i], f.Chunks[1].Digest[i] = 0x11, 0x22
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got, want := appendFileHeader(nil, 1), unhex(fileHex); !bytes.Equal(got, want) {
		t.Errorf("file header %x, want %x", got, want)
	}
	want := unhex(frameHex)
	if got := append(appendHeader(nil, &f, 1, 24), f.Sealed...); !bytes.Equal(got, want) {
		t.Errorf("frame %x, want %x", got, want)
	}
	got, err := parseFrame(want, 1, 24)
	if d := cmp.Diff(f, got); err != nil || d != "" {
		t.Errorf("parsed with %v: (-want +got)\n%s", err, d)
	}
}

// FuzzFrame parses any bytes as a frame. What parses, is rendered to the same
// bytes.
func FuzzFrame(f *testing.F) {
	fr := randomFrame(rand.NewChaCha8([32]byte{1}), 2, 20, 30)
	b := append(appendHeader(nil, &fr, 1, fileHeader), fr.Sealed...)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(b[:frameFixed])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b, 1, fileHeader)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		if again := append(appendHeader(nil, &got, 1, fileHeader), got.Sealed...); !bytes.Equal(again, b) {
			t.Errorf("%x is rendered as %x", b, again)
		}
		if err := got.check(); err != nil {
			t.Errorf("a frame that cannot be appended: %v", err)
		}
	})
}

// FuzzScan scans any bytes as a pack. Good frames and damage cover it without
// gaps.
func FuzzScan(f *testing.F) {
	rng := rand.NewChaCha8([32]byte{1})
	b := appendFileHeader(nil, 1)
	for range 3 {
		fr := randomFrame(rng, 2, 20, 30)
		b = append(appendHeader(b, &fr, 1, uint64(len(b))), fr.Sealed...)
	}
	f.Add(b)
	f.Add(b[:100])
	f.Add(append(b[:fileHeader:fileHeader], b[fileHeader+1:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		end := uint64(0)
		if checkFileHeader(b, 1) == nil {
			end = fileHeader
		}
		for s, err := range ScanFile(t.Context(), bytes.NewReader(b), int64(len(b)), 1) {
			if s.Off != end || s.Off+uint64(s.Len) > uint64(len(b)) {
				t.Fatalf("%+v follows %d of %d bytes", s.Loc, end, len(b))
			}
			end += uint64(s.Len)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
				continue
			}
			if _, err := parseFrame(b[s.Off:end], 1, s.Off); err != nil {
				t.Errorf("the scan takes %+v for a frame: %v", s.Loc, err)
			}
		}
		if end != uint64(len(b)) {
			t.Errorf("the scan ends at %d of %d bytes", end, len(b))
		}
	})
}
