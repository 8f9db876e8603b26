package check

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/koii-network/scale/store/kv"
)

// The kinds of outbox rows: the rows, their sizes from the largest down, and of those
// that are open.
const (
	outboxRow  = 'r'
	outboxBack = 'v'
	outboxOpen = 'o'
)

// maxOutboxRow is the longest row of the outbox.
const maxOutboxRow = 64 << 10

// outboxCounts is what the scan learns of the outbox of anchors. What its rows say is
// for those who anchor.
type outboxCounts struct {
	rows, back, open uint64
	largest          int64  // tree that was anchored
	chain            string // where
}

func outboxKey(chain string, kind byte, n uint64) []byte {
	return rowKey('a', []byte(chain), []byte{0, kind}, binary.BigEndian.AppendUint64(nil, n))
}

// splitOutboxKey returns the parts of a key of the outbox.
func splitOutboxKey(k []byte) (chain string, kind byte, size int64, ok bool) {
	n := bytes.IndexByte(k, 0)
	if n < 2 || n > 33 || len(k) != n+10 {
		return "", 0, 0, false
	}
	for _, b := range k[1:n] {
		if !(b >= 'a' && b <= 'z' || b >= '0' && b <= '9') {
			return "", 0, 0, false
		}
	}
	v := binary.BigEndian.Uint64(k[n+2:])
	if kind = k[n+1]; kind == outboxBack {
		v = math.MaxUint64 - v
	}
	return string(k[1:n]), kind, int64(v), v > 0 && v < maxIndex
}

func (c *checker) scanOutbox(k, v []byte) error {
	chain, kind, size, ok := splitOutboxKey(k)
	o := &c.rows.outbox
	switch {
	case !ok:
		return errShape
	case kind == outboxRow:
		if len(v) == 0 || len(v) > maxOutboxRow {
			return errShape
		}
		if o.rows++; size > o.largest {
			o.largest, o.chain = size, chain
		}
	case kind == outboxBack && len(v) == 0:
		o.back++
	case kind == outboxOpen && len(v) == 0:
		o.open++
	default:
		return errShape
	}
	return nil
}

// checkOutbox compares the outbox with the ledger, its lists with its rows, and the
// bodies in files with both.
func (l *ledgerCheck) checkOutbox() error {
	o := &l.rows.outbox
	if o.largest > l.size {
		l.errorf("outbox", doBackup, "a checkpoint of %d entries was anchored on %s, the ledger has %d: entries were lost, or an old copy was put in place", o.largest, o.chain, l.size)
	}
	// Each name in a list has to have its row; then there are as many as there are rows,
	// or one row is in no list.
	missing := uint64(0)
	for r, err := range l.db.Scan(l.ctx, []byte{'a'}, nil) {
		if err != nil {
			return l.rowError(l.ctx, err)
		}
		if err := l.listed(r, &missing); err != nil {
			return err
		}
	}
	if l.scanned && missing == 0 && o.back != o.rows {
		l.errorf("outbox", doOutbox, "%d rows of the outbox of anchors are in no list", o.rows-o.back)
	}
	return l.checkBodies()
}

const doOutbox = "the ledger is not touched by this; what was anchored is found on the chains. Anchor again"

func (l *ledgerCheck) listed(r kv.Row, missing *uint64) error {
	chain, kind, size, ok := splitOutboxKey(r.Key)
	if !ok || kind == outboxRow {
		return nil
	}
	b, err := l.get(l.ctx, outboxKey(chain, outboxRow, uint64(size)))
	if err == nil && b == nil {
		*missing++
		l.errorf("outbox", doOutbox, "the outbox of %s lists an anchor of %d entries that has no row", chain, size)
	}
	return err
}

// checkBodies looks for files of the outbox that belong to no row.
func (l *ledgerCheck) checkBodies() error {
	entries, err := os.ReadDir(filepath.Join(l.dir, "extensions"))
	if err != nil {
		if !os.IsNotExist(err) {
			l.errorf("outbox", doOutbox, "the bodies of transactions cannot be read: %v", err)
		}
		return nil
	}
	for _, e := range entries {
		chain, number, ok := strings.Cut(e.Name(), "-")
		size, err := strconv.ParseInt(number, 10, 64)
		var b []byte
		if ok && err == nil && size > 0 && strconv.FormatInt(size, 10) == number && len(chain) <= 32 {
			if b, err = l.get(l.ctx, outboxKey(chain, outboxRow, uint64(size))); err != nil {
				return err
			}
		}
		if b == nil {
			l.notef("outbox", "it can be removed", "%s", fmt.Sprintf("the file extensions/%s belongs to no anchor: a crash left it", e.Name()))
		}
	}
	return nil
}
