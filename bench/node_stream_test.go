package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A sentParts is a stream that counts the entries of its messages.
type sentParts struct {
	putStream
	entries []int
}

func (s *sentParts) Send(m *scalev1.PutRequest) error {
	s.entries = append(s.entries, len(m.GetEntries().GetEntries()))
	return nil
}

// No message has more entries than it may, be they files or directories.
func TestStreamTree(t *testing.T) {
	root := t.TempDir()
	const dirs = entriesPerMessage - 1 // so that directories and files end messages
	for i := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("%03d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte{1}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var s sentParts
	if err := streamTree(&s, root, make([]byte, 1<<10)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range s.entries {
		if total += n; n > entriesPerMessage {
			t.Errorf("a message of %d entries, limit %d", n, entriesPerMessage)
		}
	}
	if want := dirs + dirs - (dirs+2)/3; total != want {
		t.Errorf("%d entries were sent of %d", total, want)
	}
}
