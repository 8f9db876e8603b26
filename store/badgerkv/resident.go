package badgerkv

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Badger maps its tables into memory, and what it has read or written of them
// stays resident until the kernel wants it back: compactions touch all of a store
// sooner or later, and lookups by digest touch every table at random. To keep the
// process small, the pages are given back when more than maxResident bytes are in.
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

// trim gives back the resident pages of tables if there are too many.
func (s *KV) trim() {
	if residentFiles() > maxResident {
		s.pageOut()
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

// pageOut gives back the resident pages of tables. What fails is left as it is.
func (s *KV) pageOut() {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		if !bytes.Contains(line, s.mapsName) || !bytes.HasSuffix(line, []byte(".sst")) {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(string(line), "%x-%x", &from, &to); err == nil {
			// Another mapping may have come to that place since. This advice destroys
			// nothing, whatever it is given for.
			unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_PAGEOUT)
		}
	}
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
