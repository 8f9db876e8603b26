package check

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/store/kv"
)

// rowCounts is what the scan of all rows learns.
type rowCounts struct {
	of     [256]uint64 // rows by first byte of their key
	plain  uint64      // bytes of the chunks that have a sound row
	sound  uint64      // chunk rows that are sound by themselves
	packed uint64      // nodes and commitment rows that are packed
	totals *tally
	tail   *tail

	restored int64 // entries that came without their blocks
	resumed  bool
	outbox   outboxCounts
	part     row // commitment row whose parts are being read
}

// A row is a commitment row as read so far.
type row struct {
	open   bool
	name   hash
	bytes  []byte
	keys   [][]byte // of its parts
	done   bool     // a part shorter than the others came: the last
	broken bool     // a part is missing or there is one too many
}

type tally struct{ chunks, plain, packed uint64 }

type tail struct {
	pack uint32
	end  uint64
}

func (t tail) String() string { return fmt.Sprintf("byte %d of pack %d", t.end, t.pack) }

// rowPart is the length of the parts of a commitment row but the last.
const rowPart = 12 << 10

// maxIndex is above every index of an entry.
const maxIndex = 1 << 62

var errShape = errors.New("not of the form that such a row has")

// scanRows reads every row and checks what it says by itself.
func (c *checker) scanRows(ctx context.Context) error {
	var n uint64
	for r, err := range c.db.Scan(ctx, nil, nil) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.errorf("scan", doBackup, "the index cannot be read to its end: %v", err)
			c.sum.Rows = n
			return nil
		}
		if n++; n%1024 == 0 {
			c.progress("rows", n, 0)
		}
		c.rows.of[r.Key[0]]++
		if r.Key[0] != 'm' {
			c.endCommitmentRow()
		}
		if err := c.checkRow(r); err != nil {
			c.errorf("rows", doOfRow(r.Key[0]), "row %q: %v", r.Key, err)
		}
	}
	c.endCommitmentRow()
	c.checkFormat()
	c.sum.Rows, c.scanned = n, true
	return nil
}

// doOfRow says what to do about a row that is damaged by itself.
func doOfRow(prefix byte) string {
	switch prefix {
	case 'b', 'd', 'm':
		return doForget
	}
	return doBackup
}

func (c *checker) checkRow(r kv.Row) error {
	k, v := r.Key, r.Value
	shape := func(key int, value bool) error {
		if len(k) != key || !value {
			return errShape
		}
		return nil
	}
	switch k[0] {
	case 'b':
		return c.scanChunkRow(k, v)
	case 'e':
		return checkBlock(k, v)
	case 'd':
		if isPacked(v) {
			c.rows.packed++
		}
		b, err := c.unpack(v, dag.MaxBlock)
		if err == nil {
			err = checkBlock(k, b)
		}
		if err != nil {
			c.forgetLater(k)
		}
		return err
	case 'm':
		return c.scanCommitmentPart(k, v)
	case 'i':
		return shape(9, len(v) == sha256.Size && index(k[1:]))
	case 'x':
		return shape(33, index(v))
	case 't':
		return shape(10, len(v) > 0 && len(v)%sha256.Size == 0 && len(v) <= width*sha256.Size)
	case 'c':
		return shape(9, index(k[1:]) && len(v) > 0)
	case 'o':
		return shape(9, index(k[1:]) && len(v) == 0)
	case 'n':
		if _, _, ok := splitNameKey(k); !ok || !index(v) {
			return errShape
		}
		return nil
	case 'k':
		return shape(41, len(v) == 0)
	case 'q':
		_, ok := parsePut(v)
		return shape(9, ok && index(k[1:]))
	case 'p':
		n, ok := uvarints(v, 2)
		if !ok || len(k) != 1 || n[0] == 0 || n[0] > 1<<32-1 || n[1] < packHeader || n[1] > maxIndex {
			return errShape
		}
		c.rows.tail = &tail{pack: uint32(n[0]), end: n[1]}
		return nil
	case 'a':
		return c.scanOutbox(k, v)
	case 'r':
		n, ok := uvarints(v, 2)
		if !ok || len(k) != 1 || n[0] == 0 || n[0] > maxIndex || n[1] > 1 {
			return errShape
		}
		c.rows.restored, c.rows.resumed = int64(n[0]), n[1] == 1
		return nil
	case 's':
		n, ok := uvarints(v, 3)
		if !ok || len(k) != 1 {
			return errShape
		}
		c.rows.totals = &tally{n[0], n[1], n[2]}
		return nil
	}
	return errors.New("no row of a store begins like this")
}

// checkBlock checks a block that is named by its digest.
func checkBlock(key, block []byte) error {
	if len(key) != 33 {
		return errShape
	}
	if sha256.Sum256(block) != hash(key[1:]) {
		return errors.New("its bytes do not hash to its name")
	}
	return nil
}

func (t *tally) add(o tally) {
	t.chunks += o.chunks
	t.plain += o.plain
	t.packed += o.packed
}

func index(b []byte) bool { return len(b) == 8 && binary.BigEndian.Uint64(b) < maxIndex }

// uvarints parses n numbers in their shortest form that are all of b.
func uvarints(b []byte, n int) ([]uint64, bool) {
	r := reader{rest: b}
	out := make([]uint64, n)
	for i := range out {
		out[i] = r.uvarint()
	}
	return out, r.end()
}

// A chunkRow says where a chunk is.
type chunkRow struct {
	pack        uint32
	off         uint64 // of the frame
	length      uint32 // of the frame
	start, size uint32 // of the chunk in the frame's plain bytes
}

func parseChunkRow(b []byte) (chunkRow, bool) {
	n, ok := uvarints(b, 5)
	if !ok || n[0] == 0 || n[0] > 1<<32-1 || n[1] < packHeader || n[1] > maxIndex || n[2] < minFrame || n[2] > maxFrame ||
		n[3] > compress.MaxPlain || n[4] == 0 || n[3]+n[4] > compress.MaxPlain {
		return chunkRow{}, false
	}
	return chunkRow{pack: uint32(n[0]), off: n[1], length: uint32(n[2]), start: uint32(n[3]), size: uint32(n[4])}, true
}

func (c *checker) scanChunkRow(k, v []byte) error {
	r, ok := parseChunkRow(v)
	if len(k) != 33 || !ok || hash(k[1:]) == emptyDigest {
		return errShape
	}
	c.rows.sound++
	c.rows.plain += uint64(r.size)
	return nil
}

var emptyDigest = sha256.Sum256(nil)

// getChunk looks a chunk up.
func (c *checker) getChunk(ctx context.Context, digest hash) (r chunkRow, l loss, err error) {
	var key, value [48]byte
	b, err := c.db.Get(ctx, append(append(key[:0], 'b'), digest[:]...), value[:0])
	if errors.Is(err, kv.ErrNotFound) {
		return r, chunkMissing, nil
	}
	if err != nil {
		return r, rowUnreadable, c.rowError(ctx, err)
	}
	r, ok := parseChunkRow(b)
	if !ok {
		return r, rowWrong, nil
	}
	return r, c.packs.loss(digest, r), nil
}

// rowError passes on what ends the run. That a row is damaged does not.
func (c *checker) rowError(ctx context.Context, err error) error {
	if ctx.Err() == nil && errors.Is(err, kv.ErrCorrupt) {
		return nil
	}
	return err
}

func rowKey(prefix byte, parts ...[]byte) []byte {
	k := append(make([]byte, 0, 48), prefix)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func be64(i int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

// get returns a row's value, nil when it is not there or cannot be read, which
// the caller reports alike.
func (c *checker) get(ctx context.Context, key []byte) ([]byte, error) {
	b, err := c.db.Get(ctx, key, []byte{})
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, c.rowError(ctx, err)
	}
	return b, nil
}

// getIndex returns the index that a row holds, or -1.
func (c *checker) getIndex(ctx context.Context, key []byte) (int64, error) {
	b, err := c.get(ctx, key)
	if err != nil || !index(b) {
		return -1, err
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// maxVersion is the last version that a name can have.
const maxVersion = 1<<31 - 1

func nameKey(name string, version uint64) []byte {
	return rowKey('n', []byte(name), []byte{0}, binary.BigEndian.AppendUint32(nil, uint32(version)))
}

func splitNameKey(k []byte) (name string, version uint32, ok bool) {
	n := len(k) - 5
	if n < 2 || k[n] != 0 || ledger.CheckName(string(k[1:n])) != nil {
		return "", 0, false
	}
	version = binary.BigEndian.Uint32(k[n+1:])
	return string(k[1:n]), version, version > 0 && version <= maxVersion
}

type put struct {
	version uint64
	added   tally
}

func parsePut(b []byte) (put, bool) {
	n, ok := uvarints(b, 4)
	if !ok || n[0] == 0 || n[0] > maxVersion {
		return put{}, false
	}
	return put{n[0], tally{n[1], n[2], n[3]}}, true
}

// scanCommitmentPart gathers the parts of a row, which come in order.
func (c *checker) scanCommitmentPart(k, v []byte) error {
	if len(k) != 34 {
		return errShape
	}
	p := &c.rows.part
	if name := hash(k[1:]); !p.open || name != p.name {
		c.endCommitmentRow()
		*p = row{open: true, name: name, bytes: p.bytes[:0]}
	}
	if int(k[33]) != len(p.keys) || p.done || len(v) > rowPart {
		p.broken = true
	}
	p.keys = append(p.keys, bytes.Clone(k))
	if !p.broken {
		p.bytes = append(p.bytes, v...)
	}
	p.done = len(v) < rowPart
	return nil
}

func (c *checker) endCommitmentRow() {
	p := &c.rows.part
	// The first part is written last: without it the row counts as not there. It is
	// what a put leaves that was broken off, and the next one writes it anew.
	if !p.open || p.keys[0][33] != 0 {
		p.open = false
		return
	}
	p.open = false
	var name hash
	if isPacked(p.bytes) {
		c.rows.packed++
	}
	b, err := c.unpack(p.bytes, maxRow)
	if err == nil {
		_, name, err = parseRow(b)
	}
	switch {
	case p.broken || !p.done:
		err = errors.New("a part of it is missing, or too long")
	case err == nil && name != p.name:
		err = errors.New("its bytes do not hash to its name")
	}
	if err != nil {
		for _, k := range p.keys {
			c.forgetLater(k)
		}
		c.errorf("rows", doForget, "commitment row %x: %v", p.name, err)
	}
}

// maxForget bounds the keys kept to be forgotten. There are more only when all is lost.
const maxForget = 1 << 16

func (c *checker) forgetLater(key []byte) {
	if len(c.forget) < maxForget {
		c.forget = append(c.forget, bytes.Clone(key))
	}
}

// loadRow reads a commitment row and verifies it. It returns its type, or 0
// when it is not there or damaged.
func (c *checker) loadRow(ctx context.Context, name hash) (byte, error) {
	var b []byte
	for part := 0; part < 256; part++ {
		v, err := c.get(ctx, rowKey('m', name[:], []byte{byte(part)}))
		if err != nil || v == nil {
			return 0, err
		}
		b = append(b, v...)
		if len(v) < rowPart {
			break
		}
	}
	if b, err := c.unpack(b, maxRow); err == nil {
		if typ, got, err := parseRow(b); err == nil && got == name {
			return typ, nil
		}
	}
	return 0, nil
}
