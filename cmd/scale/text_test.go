package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/store"
)

func TestParseRange(t *testing.T) {
	const size = 5 << 30
	for _, c := range []struct {
		in       string
		from, to uint64 // to 0: refused
	}{
		{"0:1", 0, 1},
		{"0:", 0, size},
		{"1K:2k", 1 << 10, 2 << 10},
		{"1M:1G", 1 << 20, 1 << 30},
		{"4g:5G", 4 << 30, 5 << 30},
		{"5368709119:", size - 1, size},
		{"5G:", 0, 0},
		{"0:5368709121", 0, 0},
		{"6G:7G", 0, 0},
		{"1:1", 0, 0},
		{"2:1", 0, 0},
		{"", 0, 0},
		{":", 0, 0},
		{":5", 0, 0},
		{"5", 0, 0},
		{"0:1:2", 0, 0},
		{"-1:5", 0, 0},
		{"+1:5", 0, 0},
		{"0x1:5", 0, 0},
		{"1_0:50", 0, 0},
		{"K:5", 0, 0},
		{"1KB:5M", 0, 0},
		{"1T:", 0, 0},
		{"1.5K:5M", 0, 0},
		{" 1:5", 0, 0},
		{"0:9007199254740992K", 0, 0},
		{"0:18446744073709551616", 0, 0},
	} {
		r, err := parseRange(c.in, size)
		if c.to == 0 {
			if exitCode(err) != exitUsage {
				t.Errorf("parseRange(%q) = %v, %v, want a usage error", c.in, r, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("parseRange(%q): %v", c.in, err)
		} else if diff := cmp.Diff(&store.Range{From: c.from, To: c.to}, r); diff != "" {
			t.Errorf("parseRange(%q):\n%s", c.in, diff)
		}
	}
	if _, err := parseRange("0:", 0); exitCode(err) != exitUsage || !strings.Contains(err.Error(), "0 bytes") {
		t.Errorf("range of an empty file: %v", err)
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"a b":           "a b",
		"päth/файл/文":   "päth/файл/文",
		`back\slash`:    `back\slash`,
		`in"side`:       `in"side`,
		`"all"`:         `"\"all\""`,
		"":              "",
		"line\nbreak":   `"line\nbreak"`,
		"\x1b[2J":       `"\x1b[2J"`,
		"\xff":          `"\xff"`,
		"right\u202eto": `"right\u202eto"`,
		"nbsp\u00a0":    `"nbsp\u00a0"`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{usagef("nonsense"), 2},
		{usagef("%w", fs.ErrNotExist), 2},
		{store.ErrInvalid, 2},
		{store.ErrNotFound, 3},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, 3},
		{store.ErrKeys, 1},
		{fmt.Errorf("%w (%w)", store.ErrKeys, fs.ErrNotExist), 1},
		{store.ErrFormat, 1},
		{&proof.MismatchError{}, 4},
		{&refusal{err: errors.Join(&proof.MismatchError{}, &proof.MismatchError{})}, 4},
		{proof.ErrFormat, 4},
		{&store.ChunkError{Err: store.ErrCorrupt}, 4},
		{&store.LockedError{}, 5},
		{fmt.Errorf("put: %w", store.ErrNoSpace), 6},
		{&fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 6},
		{errSkipped, 7},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestMeter(t *testing.T) {
	var none *meter
	none.update(1, 2)
	none.clear()
	var b strings.Builder
	if w := none.count(&b, 1); w != &b {
		t.Error("a meter that shows nothing is in the way of writes")
	}
	m := &meter{w: &b}
	m.update(512<<10, 1<<20)
	if got := b.String(); !strings.Contains(got, "512 KiB of 1.0 MiB (50%)") || strings.Contains(got, "\n") {
		t.Errorf("progress is %q", got)
	}
	m.clear()
	if got := b.String(); !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("not cleared: %q", got)
	}
}
