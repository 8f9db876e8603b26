package storetest

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-cmp/cmp"

	"github.com/koii-network/scale/store/kv"
)

// rowsOf reads all rows of a reader, by scanning and by looking each up.
func (s *kvSuite) rowsOf(r kv.Reader) map[string]string {
	s.Helper()
	rows, greatest := map[string]string{}, ""
	for row, err := range r.Scan(s.ctx, nil, nil) {
		if err != nil {
			s.Fatal(err)
		}
		rows[string(row.Key)], greatest = string(row.Value), string(row.Key)
	}
	for k, want := range rows {
		got, err := r.Get(s.ctx, []byte(k), nil)
		if has, herr := r.Has(s.ctx, []byte(k)); err != nil || herr != nil || !has || string(got) != want {
			s.Errorf("row %q: %q and %t, %v and %v", k, got, has, err, herr)
		}
	}
	if row, err := r.Last(s.ctx, nil); len(rows) > 0 && (err != nil || string(row.Key) != greatest) {
		s.Errorf("last row is %q, %v, want %q", row.Key, err, greatest)
	}
	return rows
}

// view checks that a snapshot shows one moment, whatever is committed meanwhile and
// however often.
func (s *kvSuite) view() {
	open := func() kv.Snapshot {
		s.Helper()
		v, err := s.kv.Snapshot()
		if err != nil {
			s.Fatal(err)
		}
		return v
	}
	empty := open()
	s.commit("kept", "1", "replaced", "1", "gone", "1")
	one := open()
	s.commit("replaced", "2", "-gone", "new", "2")
	two, again := open(), open()
	again.Close()
	again.Close()
	want := map[kv.Snapshot]map[string]string{
		empty: {},
		one:   {"kept": "1", "replaced": "1", "gone": "1"},
		two:   {"kept": "1", "replaced": "2", "new": "2"},
	}
	check := func() {
		s.Helper()
		for v, rows := range want {
			if d := cmp.Diff(rows, s.rowsOf(v)); d != "" {
				s.Error(d)
			}
			if _, err := v.Get(s.ctx, []byte("later"), nil); !errors.Is(err, kv.ErrNotFound) {
				s.Errorf("a later row: %v", err)
			}
		}
	}
	check()
	// Enough that the store cleans up behind itself.
	long := string(make([]byte, 200<<10))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			s.commit("replaced", fmt.Sprint(i), "new", long, "later", long)
		}
	})
	check()
	wg.Wait()
	check()
	one.Close()
	delete(want, one)
	for range 100 {
		s.commit("replaced", "3", "-kept", "new", long)
	}
	check()
	if _, err := one.Get(s.ctx, []byte("kept"), nil); !errors.Is(err, kv.ErrClosed) {
		s.Errorf("Get of a closed snapshot: %v", err)
	}
	if _, err := one.Has(s.ctx, []byte("kept")); !errors.Is(err, kv.ErrClosed) {
		s.Errorf("Has of a closed snapshot: %v", err)
	}
	if _, err := one.Last(s.ctx, nil); !errors.Is(err, kv.ErrClosed) {
		s.Errorf("Last of a closed snapshot: %v", err)
	}
	for _, err := range one.Scan(s.ctx, nil, nil) {
		if !errors.Is(err, kv.ErrClosed) {
			s.Errorf("Scan of a closed snapshot: %v", err)
		}
	}
	if _, err := two.Get(s.ctx, nil, nil); !errors.Is(err, kv.ErrTooLarge) {
		s.Errorf("Get of no key: %v", err)
	}
	s.want("kept", "", false)
	empty.Close()
	// A snapshot does not keep the store from being closed.
	s.reopen()
	if _, err := two.Get(s.ctx, []byte("kept"), nil); !errors.Is(err, kv.ErrClosed) {
		s.Errorf("Get when the store is closed: %v", err)
	}
	two.Close()
	s.want("replaced", "3", true)
}
