package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/store/kv"
	"github.com/koii-network/scale/store/pack"
)

func TestRows(t *testing.T) {
	c := chunkRow{Loc: pack.Loc{Pack: 3, Off: 1 << 33, Len: 70_000}, Start: 1234, Size: 1 << 17}
	// Pinned: FORMAT.md says these bytes.
	want := []byte{3, 0x80, 0x80, 0x80, 0x80, 0x20, 0xf0, 0xa2, 0x04, 0xd2, 0x09, 0x80, 0x80, 0x08}
	if got := c.append(nil); !bytes.Equal(got, want) {
		t.Errorf("chunk row %x, want %x", got, want)
	}
	if got, err := parseChunkRow(want); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range want {
		if _, err := parseChunkRow(want[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := parseChunkRow(append(want, 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a byte too many: %v", err)
	}
	name, err := nameKey("name", 2)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, key := range map[string][]byte{
		"74000000000000000007": tileKey(0, 7), "6e6e616d650000000002": name, "690000000000000005": indexKey(rowIndex, 5),
		"616b3200720000000000000007": outboxKey("k2", outboxRow, 7), "616b320076fffffffffffffff8": outboxKey("k2", outboxBack, 7), "616b32006f0000000000000007": outboxKey("k2", outboxOpen, 7),
		"72": {rowRestored}, "c00200": restoredRow{size: 320}.append(nil), "c00201": restoredRow{size: 320, resumed: true}.append(nil),
	} {
		if got := hexOf(key); got != prefix {
			t.Errorf("key %s, want %s", got, prefix)
		}
	}
}

// No number stands for a version that it is not, written or read.
func TestVersionRows(t *testing.T) {
	for _, v := range []int{1, 2, maxVersion} {
		key, err := nameKey("x", v)
		if err != nil {
			t.Fatal(err)
		}
		if at, err := parseSlot(kv.Row{Key: key, Value: putInt(7)}); err != nil || at != (slot{"x", v, 7}) {
			t.Errorf("version %d reads as %+v, %v", v, at, err)
		}
		if r, err := parsePutRow(putRow{version: v}.append(nil)); err != nil || r.version != v {
			t.Errorf("version %d reads as %+v, %v", v, r, err)
		}
	}
	for _, v := range []int{math.MinInt, math.MinInt32, -1, 0, maxVersion + 1, math.MaxUint32, math.MaxUint32 + 2, math.MaxInt} {
		if key, err := nameKey("x", v); !errors.Is(err, ErrNotFound) {
			t.Errorf("version %d has the key %x, %v", v, key, err)
		}
		if r, err := parsePutRow(putRow{version: v}.append(nil)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("version %d reads as %+v, %v", v, r, err)
		}
	}
	for _, v := range []uint32{0, maxVersion + 1, math.MaxUint32} {
		key := binary.BigEndian.AppendUint32(namePrefix("x"), v)
		if at, err := parseSlot(kv.Row{Key: key, Value: putInt(7)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("version %d reads as %+v, %v", v, at, err)
		}
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// Whatever the index holds, rows parse or fail with ErrCorrupt, and what parses is
// bounded by what a frame can be.
func FuzzRows(f *testing.F) {
	f.Add([]byte{3, 0x80, 0x80, 0x80, 0x80, 0x20, 0xf0, 0xa2, 0x04, 0xd2, 0x09, 0x80, 0x80, 0x08})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0, 0})
	f.Add([]byte{0xc0, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRestoredRow(b); err == nil {
			if back, err := parseRestoredRow(r.append(nil)); err != nil || back != r || r.size < 1 {
				t.Errorf("%x parses to %+v, which reads back as %+v, %v", b, r, back, err)
			}
		}
		if r, err := parseChunkRow(b); err == nil {
			if back, err := parseChunkRow(r.append(nil)); err != nil || back != r {
				t.Errorf("%x parses to %+v, which reads back as %+v, %v", b, r, back, err)
			}
			if uint64(r.Start)+uint64(r.Size) > compress.MaxPlain {
				t.Errorf("%x parses to %+v", b, r)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		if _, err := parseTally(b); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		if r, err := parsePutRow(b); err != nil && !errors.Is(err, ErrCorrupt) || err == nil && (r.version < 1 || r.version > maxVersion) {
			t.Errorf("%x parses to %+v, %v", b, r, err)
		}
		if _, err := parseInt(b); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
