package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sample is what one run of a program took, and of a put also what it left.
type sample struct {
	Wall float64 `json:"wall_seconds"`
	CPU  float64 `json:"cpu_seconds"` // user and system, children included
	Peak int64   `json:"peak_bytes"`  // of the largest process; see run
	// Written is what the program and its children gave to the disk, see run; bytes that
	// are in no file any more are in it.
	Written int64 `json:"written_bytes,omitempty"`
	// Stored is what the store takes on disk more than before, as du counts it.
	Stored int64 `json:"stored_bytes,omitempty"`
	// Unsynced bytes of the store were in memory alone when the program had ended.
	Unsynced int64 `json:"unsynced_bytes,omitempty"`
}

// A command is a program to run, with its standard input and output.
type command struct {
	args []string
	env  []string              // besides our own
	in   string                // file for standard input, "" for none
	feed func(io.Writer) error // instead writes standard input
	out  string                // file for standard output, "" for none
}

// run runs a program to its end. The kernel counts the most that this process itself had
// resident into the peak of what it starts, so smaller peaks cannot be seen; see
// report.Floor.
//
// Bytes written are the kernel's write_bytes, which it adds up over children that were
// waited for (/proc/PID/io is of one process, and gone with it): pages that the program
// made dirty, or wrote past the page cache, on anything that has a disk behind it. What
// the file system writes for itself, its journal and inodes, is not in it.
func run(ctx context.Context, c command) (s sample, err error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	if c.in != "" {
		in, err := os.Open(c.in)
		if err != nil {
			return sample{}, err
		}
		defer in.Close()
		cmd.Stdin = in
	}
	if c.out != "" {
		out, err := os.Create(c.out)
		if err != nil {
			return sample{}, err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
		cmd.Stdout = out
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	fed := make(chan error, 1)
	if c.feed != nil {
		in, err := cmd.StdinPipe()
		if err != nil {
			return sample{}, err
		}
		go func() { fed <- errors.Join(c.feed(in), in.Close()) }()
	}
	start := time.Now()
	err = cmd.Run()
	wall := time.Since(start)
	if c.feed != nil {
		err = errors.Join(err, <-fed)
	}
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, said.Bytes())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{
		Wall:    wall.Seconds(),
		CPU:     (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		Peak:    usage.Maxrss << 10,
		Written: usage.Oublock * 512,
	}, nil
}

// unsynced returns how many bytes of the files below root wait in memory to be written,
// or -1 where the kernel does not say (before Linux 6.5).
func unsynced(root string) (total int64, err error) {
	page := int64(os.Getpagesize())
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || total < 0 {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		var all unix.CachestatRange // of length 0: to the end
		var c unix.Cachestat_t
		switch err := unix.Cachestat(uint(f.Fd()), &all, &c, 0); {
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP):
			total = -1
		case err != nil:
			return fmt.Errorf("cachestat of %s: %w", name, err)
		default:
			total += int64(c.Dirty+c.Writeback) * page
		}
		return nil
	})
	return total, err
}

// allocated returns the bytes that a file or a tree takes on disk, as du counts them.
func allocated(root string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := make(map[inode]bool)
	var total int64
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if id := (inode{st.Dev, st.Ino}); !seen[id] {
			seen[id] = true
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

// empty gives back the room of all files below root and keeps their names: for some minutes
// after many files were deleted, ext4 passes over their inodes one by one whenever it makes
// a file, which made restoring ten times slower for whoever came next.
func empty(root string) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if err := os.Chmod(name, 0o600); err != nil { // restic and casync let nobody write
			return err
		}
		return os.Truncate(name, 0)
	})
}

// settle reads an input, so that it comes from memory, and lets the disk finish what
// the run before left to it. A store that is served has a socket, and files that go.
func settle(input string) error {
	syscall.Sync()
	return filepath.WalkDir(input, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && name != input {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		return errors.Join(err, f.Close())
	})
}

// same reports, as an error, the first difference in the names or contents of two files
// or trees.
func same(want, got string) error {
	count := func(root string) (n int, err error) {
		err = filepath.WalkDir(root, func(_ string, _ fs.DirEntry, err error) error {
			n++
			return err
		})
		return n, err
	}
	wanted, err := count(want)
	if err != nil {
		return err
	}
	if n, err := count(got); err != nil {
		return err
	} else if n != wanted {
		return fmt.Errorf("%s has %d names, %s has %d", want, wanted, got, n)
	}
	a, b := make([]byte, 1<<16), make([]byte, 1<<16)
	return filepath.WalkDir(want, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(want, name)
		if err != nil {
			return err
		}
		other := filepath.Join(got, rel)
		if d.IsDir() {
			info, err := os.Lstat(other)
			if err == nil && !info.IsDir() {
				err = fmt.Errorf("%s is not a directory", other)
			}
			return err
		}
		return sameFile(name, other, a, b)
	})
}

// sameTar reports, as an error, the first difference between the files of a tree and those
// of a tar archive. Tools put different directories before the names; what counts is that
// it is one and the same, and that every file is there once.
func sameTar(want, archive string) error {
	left := make(map[string]bool) // names of files, relative
	err := filepath.WalkDir(want, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			left[strings.TrimPrefix(name, want+"/")] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	a, b := make([]byte, 1<<16), make([]byte, 1<<16)
	prefix, known := "", false
	for in := tar.NewReader(bufio.NewReaderSize(f, 1<<20)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		for rest := h.Name; !known; {
			if left[rest] {
				prefix, known = strings.TrimSuffix(h.Name, rest), true
				break
			}
			var ok bool
			if _, rest, ok = strings.Cut(rest, "/"); !ok {
				return fmt.Errorf("%s in %s is not in %s", h.Name, archive, want)
			}
		}
		name, ok := strings.CutPrefix(h.Name, prefix)
		if !ok || !left[name] {
			return fmt.Errorf("%s in %s is not in %s, or comes twice", h.Name, archive, want)
		}
		delete(left, name)
		data, err := os.Open(filepath.Join(want, name))
		if err != nil {
			return err
		}
		err = sameBytes(data, in, a, b)
		if err := errors.Join(err, data.Close()); err != nil {
			return fmt.Errorf("%s in %s and that in %s: %w", h.Name, archive, want, err)
		}
	}
	for name := range left {
		return fmt.Errorf("%s is not in %s", name, archive)
	}
	return nil
}

func sameFile(want, got string, a, b []byte) error {
	w, err := os.Open(want)
	if err != nil {
		return err
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		return err
	}
	defer g.Close()
	if err := sameBytes(w, g, a, b); err != nil {
		return fmt.Errorf("%s and %s: %w", got, want, err)
	}
	return nil
}

// sameBytes compares to the end; a and b are room of the same size.
func sameBytes(want, got io.Reader, a, b []byte) error {
	for {
		n, err := io.ReadFull(want, a)
		m, gotErr := io.ReadFull(got, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return errors.New("they differ")
		}
		if gotErr != nil && !errors.Is(gotErr, io.EOF) && !errors.Is(gotErr, io.ErrUnexpectedEOF) {
			return gotErr
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
