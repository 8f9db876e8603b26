package badgerkv

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/store/kv"
)

// verifyBytes is how many bytes of tables Open verifies block by block, newest
// tables first: the index of some 100 GB of data. Of the tables beyond it Open
// verifies the index and the last block, which Badger reads when it opens them,
// and dies of if they are damaged.
const verifyBytes = 256 << 20

// readSize is how much is read of a table at a time: little enough to stay in the
// processor's cache for the checksum, more than most blocks.
const readSize = 64 << 10

// registryText is what a KEYREGISTRY without keys holds after 16 random bytes.
const registryText = "Hello Badger"

// An inventory is what verify found in a store's directory.
type inventory struct {
	tableBytes int64 // of all tables
	l0Tables   int   // tables in level 0
	newest     uint64
	logs       []walFile
	useless    []string // files without information that Badger can do without
}

// verify reads the files of the store in dir before Badger does, so that no
// damage is left that makes Badger panic in a goroutine of its own, end the
// process, delete tables or miss rows. It changes nothing.
func verify(dir string) (inventory, error) {
	var inv inventory
	entries, err := os.ReadDir(dir)
	if err != nil {
		return inv, err
	}
	onDisk := make(map[uint64]bool)
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".sst":
			if id, ok := table.ParseFileID(name); ok {
				onDisk[id] = true
			}
		case ".mem":
			fid, err := strconv.ParseUint(strings.TrimSuffix(name, ".mem"), 10, 32)
			if err != nil {
				return inv, fmt.Errorf("%s is no write-ahead log: %w", name, kv.ErrCorrupt)
			}
			w := walFile{path: logPath(dir, uint32(fid)), fid: uint32(fid)}
			if filepath.Base(w.path) != name {
				return inv, fmt.Errorf("%s is no write-ahead log: %w", name, kv.ErrCorrupt)
			}
			inv.logs = append(inv.logs, w)
		case ".vlog":
			inv.useless = append(inv.useless, filepath.Join(dir, name))
		}
	}
	// The list of encryption keys is empty and can be made anew.
	registry := filepath.Join(dir, badger.KeyRegistryFileName)
	if b, err := os.ReadFile(registry); err == nil && (len(b) != 16+len(registryText) || string(b[16:]) != registryText) {
		inv.useless = append(inv.useless, registry)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return inv, err
	}
	manifest, torn, err := readManifest(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		// Badger would begin a new manifest and delete every table that is not in it.
		if len(onDisk)+len(inv.logs) > 0 {
			return inv, fmt.Errorf("MANIFEST is missing: %w", kv.ErrCorrupt)
		}
		return inv, nil
	} else if err != nil {
		return inv, err
	}
	if torn && len(inv.logs) == 0 {
		return inv, fmt.Errorf("MANIFEST ends in the middle of a record, and the store was closed: %w", kv.ErrCorrupt)
	}
	if err := inv.verifyTables(dir, manifest.Tables, onDisk); err != nil {
		return inv, err
	}
	return inv, inv.verifyLogs()
}

// readManifest reads the list of tables, and says whether it ends in a record
// that is cut short.
func readManifest(path string) (m badger.Manifest, torn bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, false, err
	}
	defer f.Close()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("MANIFEST: %w", panicked(r))
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return m, false, err
	}
	m, end, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions("").WithLogger(nil))
	if err != nil {
		return m, false, fmt.Errorf("MANIFEST: %w: %w", kv.ErrCorrupt, err)
	}
	return m, end != fi.Size(), nil
}

// verifyTables verifies the tables of the manifest.
func (inv *inventory) verifyTables(dir string, tables map[uint64]badger.TableManifest, onDisk map[uint64]bool) error {
	type job struct {
		id   uint64
		size int64
		full bool
	}
	var jobs []job
	for id, t := range tables {
		if !onDisk[id] {
			return fmt.Errorf("table %s is missing: %w", table.IDToFilename(id), kv.ErrCorrupt)
		}
		if t.Compression != options.None || t.KeyID != 0 {
			return fmt.Errorf("table %s is compressed or encrypted: %w", table.IDToFilename(id), kv.ErrCorrupt)
		}
		fi, err := os.Stat(table.NewFilename(id, dir))
		if err != nil {
			return err
		}
		jobs = append(jobs, job{id: id, size: fi.Size()})
		inv.tableBytes += fi.Size()
		if t.Level == 0 {
			inv.l0Tables++
		}
	}
	slices.SortFunc(jobs, func(a, b job) int { return cmp.Compare(b.id, a.id) })
	left := int64(verifyBytes)
	for i := range jobs {
		left -= jobs[i].size
		jobs[i].full = left >= 0
	}
	newest := make([]uint64, len(jobs))
	var g errgroup.Group
	g.SetLimit(2)
	for i, j := range jobs {
		g.Go(func() error {
			f, err := os.Open(table.NewFilename(j.id, dir))
			if err != nil {
				return err
			}
			defer f.Close()
			if newest[i], err = verifyTable(f, j.size, j.full); err != nil {
				return fmt.Errorf("table %s: %w", table.IDToFilename(j.id), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, v := range newest {
		inv.newest = max(inv.newest, v)
	}
	return nil
}

// verifyTable checks the checksums of a table's index and of its blocks, or of
// the last block alone. It returns the newest version in the table.
//
//	block ... index | length of index u32 | checksum | length of checksum u32
func verifyTable(f io.ReaderAt, size int64, full bool) (newest uint64, err error) {
	bad := func(what string) error { return fmt.Errorf("%s: %w", what, kv.ErrCorrupt) }
	defer func() {
		if r := recover(); r != nil {
			err = bad(fmt.Sprint(r))
		}
	}()
	end := size
	field := func(n int64) ([]byte, error) {
		if n < 0 || n > end {
			return nil, bad("cut short")
		}
		b := make([]byte, n)
		end -= n
		_, err := f.ReadAt(b, end)
		return b, err
	}
	length := func() (int64, error) {
		b, err := field(4)
		if err != nil {
			return 0, err
		}
		return int64(binary.BigEndian.Uint32(b)), nil
	}
	prefixed := func() ([]byte, error) {
		n, err := length()
		if err != nil {
			return nil, err
		}
		return field(n)
	}
	sum, err := prefixed()
	if err != nil {
		return 0, err
	}
	data, err := prefixed()
	if err != nil {
		return 0, err
	}
	if !sumMatches(data, sum) {
		return 0, bad("the index does not match its checksum")
	}
	index := fb.GetRootAsTableIndex(data, 0)
	first := 0
	if !full {
		first = index.OffsetsLength() - 1
	}
	var r *bufio.Reader
	var pos int64
	var block []byte
	for i := first; i < index.OffsetsLength(); i++ {
		var o fb.BlockOffset
		if !index.Offsets(&o, i) {
			return 0, bad("the index has no blocks")
		}
		from, n := int64(o.Offset()), int64(o.Len())
		if r == nil {
			r, pos = bufio.NewReaderSize(io.NewSectionReader(f, from, end-from), readSize), from
		}
		if from != pos || n > end-from {
			return 0, bad("blocks are not where they should be")
		}
		var b []byte
		if n <= readSize {
			b, err = r.Peek(int(n))
		} else {
			block = slices.Grow(block[:0], int(n))[:n]
			_, err = io.ReadFull(r, block)
			b = block
		}
		if err != nil {
			return 0, err
		}
		if !blockMatches(b) {
			return 0, bad(fmt.Sprintf("block %d does not match its checksum", i))
		}
		if n <= readSize {
			r.Discard(int(n)) // all of it is buffered
		}
		pos += n
	}
	if pos != end {
		return 0, bad("blocks do not fill it")
	}
	return index.MaxVersion(), nil
}

// blockMatches verifies a block: bytes | checksum | length of checksum u32.
func blockMatches(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	n := len(b) - 4
	sumLen := int64(binary.BigEndian.Uint32(b[n:]))
	if sumLen > int64(n) {
		return false
	}
	at := n - int(sumLen)
	return sumMatches(b[:at], b[at:n])
}

// sumMatches says whether marshalled is Badger's checksum of data.
func sumMatches(data, marshalled []byte) bool {
	var sum pb.Checksum
	return proto.Unmarshal(marshalled, &sum) == nil && sum.Algo == pb.Checksum_CRC32C &&
		sum.Sum == y.CalculateChecksum(data, pb.Checksum_CRC32C)
}

// tidy removes what verify found to be of no use and Badger could stumble on.
func (inv *inventory) tidy() error {
	for _, path := range inv.useless {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	var logs []walFile
	for _, w := range inv.logs {
		// Of a log without a whole commit nothing is needed. Badger refuses an empty
		// file, which is what a crash may leave of a new log.
		if w.last == 0 {
			if err := os.Remove(w.path); err != nil {
				return err
			}
			continue
		}
		// Badger would stop there too, but not before it has made room for a record
		// of whatever length the torn bytes tell.
		if w.end < w.size {
			if err := os.Truncate(w.path, w.end); err != nil {
				return err
			}
		}
		logs = append(logs, w)
	}
	inv.logs = logs
	return nil
}
