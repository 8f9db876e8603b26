package main

import (
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
)

// A sample is what one run of a program took.
type sample struct {
	Wall float64 `json:"wall_seconds"`
	CPU  float64 `json:"cpu_seconds"` // user and system, children included
	Peak int64   `json:"peak_bytes"`  // of the largest process; see run
}

// A command is a program to run, with its standard input and output.
type command struct {
	args []string
	env  []string // besides our own
	in   string   // file for standard input, "" for none
	out  string   // file for standard output, "" for none
}

// run runs a program to its end. The kernel counts this process's own memory into the
// peak of what it starts, so peaks below about 30 MB mean nothing.
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
	start := time.Now()
	err = cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, said.Bytes())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{
		Wall: wall.Seconds(),
		CPU:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		Peak: usage.Maxrss << 10,
	}, nil
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

// settle reads an input, so that it comes from memory, and lets the disk finish what
// the run before left to it.
func settle(input string) error {
	syscall.Sync()
	return filepath.WalkDir(input, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() { // a store that is served has a socket
			return err
		}
		f, err := os.Open(name)
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
	for {
		n, err := io.ReadFull(w, a)
		m, gotErr := io.ReadFull(g, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("%s differs from %s", got, want)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		case gotErr != nil && !errors.Is(gotErr, io.EOF):
			return gotErr
		}
	}
}
