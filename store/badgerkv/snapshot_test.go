package badgerkv

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/koii-network/scale/store/kv"
)

// Compactions drop what was replaced, but for what a snapshot still sees.
func TestCompactionSparesSnapshots(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "kv"))
	defer shut(t, s)
	write := func(value string) {
		t.Helper()
		for i := range 20 {
			var b kv.Batch
			for j := range 40 {
				b.Set(fmt.Appendf(nil, "%d.%d", i, j), append([]byte(value), make([]byte, 10<<10)...))
			}
			if err := s.Commit(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("one")
	v, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		write("two")
	}
	if err := s.db.Flatten(1); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if b, err := v.Get(t.Context(), fmt.Appendf(nil, "%d.7", i), nil); err != nil || string(b[:3]) != "one" {
			t.Fatalf("row %d: %.3q, %v", i, b, err)
		}
	}
	v.Close()
	if len(s.pinned) != 0 {
		t.Errorf("%v is pinned", s.pinned)
	}
}
