package badgerkv

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"time"

	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// Badger maps its tables into memory, and what it has read or written of them
// stays resident until the kernel wants it back: compactions touch all of a store
// sooner or later, and lookups by digest touch every table at random. To keep the
// process small, tables are unmapped when more than maxResident bytes are in. They
// stay in the page cache, from where a touch brings 64 KiB back in a microsecond or two.
const (
	maxResident = 112 << 20
	// trimEvery is for compactions, which run beside the calls: what one touches in
	// that time, some 25 MB, comes on top.
	trimEvery = 100 * time.Millisecond
	// A check costs one read of a file in /proc, so it comes after so many lookups
	// and bytes of rows.
	trimLookups = 1 << 10
	trimBytes   = 1 << 20
)

// trim unmaps the resident pages of tables if there are too many.
func (s *KV) trim() {
	if residentFiles() > maxResident {
		s.unmap()
	}
}

// watch calls trim at every tick until stop is called, which returns when that is over.
func watch(tick <-chan time.Time, trim func()) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-tick:
				trim()
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// unmap takes the resident pages of tables out of the process. What fails is left as it is.
func (s *KV) unmap() {
	held, release := s.hold()
	defer release()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	// Where a table was, there may be memory of the process by now. MADV_DONTNEED would
	// destroy that; pages of a file it takes out of the process alone. MADV_PAGEOUT does
	// no harm whatever it is given for, but what it takes comes back from the disk.
	var from, to uintptr // of held tables side by side: each call interrupts all processors
	flush := func() {
		if to > from {
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
		from, to = 0, 0
	}
	defer flush()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		at := bytes.Index(line, s.mapsName)
		if at < 0 {
			continue
		}
		id, ok := table.ParseFileID(string(line[at+len(s.mapsName):]))
		if !ok {
			continue
		}
		var begin, end uintptr
		if _, err := fmt.Sscanf(string(line), "%x-%x", &begin, &end); err != nil {
			continue
		}
		switch {
		case !held[id]:
			unix.Syscall(unix.SYS_MADVISE, begin, end-begin, unix.MADV_PAGEOUT)
		case begin == to:
			to = end
		default:
			flush()
			from, to = begin, end
		}
	}
}

// hold keeps tables where they are mapped until release is called, and returns their
// numbers: none when the store is about to close.
func (s *KV) hold() (ids map[uint64]bool, release func()) {
	release = func() {}
	if s.lk.enter() != nil {
		return nil, release
	}
	defer func() {
		if recover() != nil { // see cursorAt
			ids = nil
			release()
			release = func() {}
		}
	}()
	release = s.lk.calls.Done
	before := make(map[uint64]bool)
	for _, t := range s.db.Tables() {
		before[t.ID] = true
	}
	// An iterator over all keys has a reference to each table that is there when it
	// is made. Numbers are not used again, so one that is there before and after is.
	c, err := s.cursorAt(s.committed.Load(), nil, false)
	if err != nil {
		return nil, release
	}
	release = func() {
		c.close()
		s.lk.calls.Done()
	}
	ids = make(map[uint64]bool)
	for _, t := range s.db.Tables() {
		if before[t.ID] {
			ids[t.ID] = true
		}
	}
	return ids, release
}

// residentFiles returns how many bytes of mapped files are resident, 0 if that
// is not known.
func residentFiles() int {
	b, err := os.ReadFile("/proc/self/statm")
	var size, resident, shared int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &resident, &shared)
	}
	if err != nil {
		return 0
	}
	return shared * os.Getpagesize()
}
