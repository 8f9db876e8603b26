package badgerkv

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// residentTables returns how many bytes of the store's tables are mapped and resident.
func residentTables(t *testing.T, s *KV) (n int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	table := false
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		line := lines.Text()
		var kb int
		if strings.Contains(line, string(s.mapsName)) {
			table = strings.HasSuffix(line, ".sst")
		} else if _, err := fmt.Sscanf(line, "Rss: %d kB", &kb); err == nil && table {
			n += kb << 10
			table = false
		}
	}
	return n
}

func TestUnmap(t *testing.T) {
	const rows = 40_000
	dir := t.TempDir()
	s := open(t, dir)
	for from := 0; from < rows; from += rows / 4 {
		fill(t, s, from, rows/4)
		shut(t, s)
		s = open(t, dir)
	}
	defer shut(t, s) // of four tables of level 0, which stay what they are
	wantRows(t, s, rows)
	if n := residentTables(t, s); n < 1<<20 {
		t.Fatalf("%d bytes of tables are resident, though all rows were read", n)
	}
	held, release := s.hold()
	release()
	if want := len(s.db.Tables()); len(held) != 4 || want != 4 {
		t.Errorf("%d of %d tables are held", len(held), want)
	}
	s.unmap()
	if n := residentTables(t, s); n > 256<<10 {
		t.Errorf("%d bytes of tables are resident still", n)
	}
	wantRows(t, s, rows)
}

// Pages are taken while tables come, are read and go, and while the store closes.
func TestUnmapBeside(t *testing.T) {
	rows := 200_000
	if testing.Short() {
		rows = 40_000
	}
	dir := t.TempDir()
	s := open(t, dir)
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.unmap()
			}
		}
	})
	beside.Go(func() {
		for i := 0; ; i = (i + 7919) % rows {
			select {
			case <-stop:
				return
			default:
			}
			key, value := indexRow(i)
			got, err := s.Get(t.Context(), key, nil)
			if err == nil && !bytes.Equal(got, value) {
				t.Errorf("row %d is %x", i, got)
				return
			}
		}
	})
	for from := 0; from < rows; from += 20_000 {
		fill(t, s, from, 20_000)
	}
	wantRows(t, s, rows)
	shut(t, s)
	close(stop)
	beside.Wait()
	if held, release := s.hold(); len(held) > 0 {
		t.Error("tables of a closed store are held")
	} else {
		release()
	}
	s = open(t, dir)
	defer shut(t, s)
	wantRows(t, s, rows)
}
