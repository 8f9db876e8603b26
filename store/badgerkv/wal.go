package badgerkv

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/koii-network/scale/store/kv"
)

// A walFile is one of Badger's write-ahead logs, NNNNN.mem: the commits of a
// table in memory that has not been written out. There is none after a Close.
//
// Badger replays a log up to the first record that does not match its checksum
// and takes the rest for a torn write. But commits are serial here and each is
// synced before the next begins, and their timestamps have no gaps, so a crash
// can tear no commit but the very last.
type walFile struct {
	path        string
	fid         uint32
	end         int64  // where whole commits end
	size        int64  // of the file
	first, last uint64 // timestamps of its commits; 0 if there are none
}

// logPath returns where Badger has log number fid.
func logPath(dir string, fid uint32) string { return filepath.Join(dir, fmt.Sprintf("%05d.mem", fid)) }

const (
	walHeader = 20 // key id and IV, both without meaning as we do not encrypt
	metaTxn   = 1 << 6
	metaFin   = 1 << 7
	finKey    = "!badger!txn"
)

// verifyLogs finds where the logs end, and lost commits.
func (inv *inventory) verifyLogs() error {
	slices.SortFunc(inv.logs, func(a, b walFile) int { return cmp.Compare(a.fid, b.fid) })
	newest := inv.newest
	for i := range inv.logs {
		w := &inv.logs[i]
		b, err := os.ReadFile(w.path)
		if err != nil {
			return err
		}
		later := w.read(b)
		if w.last > 0 && w.first > newest+1 {
			return fmt.Errorf("commits %d to %d before write-ahead log %s are lost: %w", newest+1, w.first-1, filepath.Base(w.path), kv.ErrCorrupt)
		}
		newest = max(newest, w.last)
		for _, ts := range later {
			if ts > newest+1 {
				return fmt.Errorf("commits from %d on in write-ahead log %s are damaged: %w", newest+1, filepath.Base(w.path), kv.ErrCorrupt)
			}
		}
	}
	inv.newest = newest
	return nil
}

// read sets what the log's bytes tell and returns the timestamps of the
// commits whose last record is found behind the end of the whole ones.
func (w *walFile) read(b []byte) (later []uint64) {
	w.size, w.end = int64(len(b)), walHeader
	pos := walHeader
	var open uint64 // timestamp of the commit that is being read
	for {
		r, n := parseRecord(b, pos)
		if n == 0 {
			break
		}
		pos += n
		if r.meta&metaFin == 0 {
			if r.meta&metaTxn == 0 || open != 0 && open != r.ts {
				break
			}
			open = r.ts
			continue
		}
		if ts, err := strconv.ParseUint(string(r.value), 10, 64); err != nil || ts != open {
			break
		}
		if w.first == 0 {
			w.first = open
		}
		w.end, w.last, open = int64(pos), open, 0
	}
	for pos = min(int(w.end), len(b)); ; {
		i := bytes.Index(b[pos:], []byte(finKey))
		if i < 0 {
			return later
		}
		pos += i
		// Before the key of a commit's last record are five bytes: two of meta and
		// three lengths that take one byte each.
		if r, n := parseRecord(b, pos-5); n > 0 && r.meta&metaFin != 0 {
			later = append(later, r.ts)
		}
		pos += len(finKey)
	}
}

// A record is one row of a log, or the end of a commit.
type record struct {
	meta  byte
	ts    uint64 // the last 8 bytes of the key, inverted
	value []byte
}

// parseRecord parses the record at pos of a log and returns its length, or 0
// if there is no whole one:
//
//	meta u8 | user meta u8 | key length uvarint | value length uvarint | expiry uvarint | key | value | crc32c u32
func parseRecord(b []byte, pos int) (record, int) {
	if pos < 0 || pos+2 > len(b) {
		return record{}, 0
	}
	b = b[pos:]
	at := 2
	var nums [3]uint64
	for i := range nums {
		v, n := binary.Uvarint(b[at:])
		if n <= 0 {
			return record{}, 0
		}
		nums[i] = v
		at += n
	}
	key, value := nums[0], nums[1]
	if key < 8 || key > math.MaxUint16 || value > uint64(len(b)) || uint64(at)+key+value+4 > uint64(len(b)) {
		return record{}, 0
	}
	k := b[at:][:key]
	end := at + int(key+value)
	if crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[end:]) {
		return record{}, 0
	}
	return record{meta: b[0], ts: math.MaxUint64 - binary.BigEndian.Uint64(k[key-8:]), value: b[end-int(value) : end]}, end + 4
}
