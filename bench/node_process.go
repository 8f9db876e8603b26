package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// A nodeProcess is a running "scale serve" on a store of its own.
type nodeProcess struct {
	bin, store string
	token      string // of the scope admin
	grpc       string // address
	cmd        *exec.Cmd
	log        string // file
	conns      []*grpc.ClientConn
}

// newNode makes a store with a token and serves it.
func newNode(ctx context.Context, bin, store string) (*nodeProcess, error) {
	if _, err := run(ctx, command{args: []string{bin, "--store", store, "init"}}); err != nil {
		return nil, err
	}
	token, err := exec.CommandContext(ctx, bin, "--store", store, "token", "create", "bench", "--scope", "admin").Output()
	if err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	n := &nodeProcess{bin: bin, store: store, token: strings.TrimSpace(string(token)), log: store + ".log"}
	return n, n.start(ctx)
}

// start serves the store, and returns when it is served.
func (n *nodeProcess) start(ctx context.Context) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.cmd = exec.CommandContext(ctx, n.bin, "serve", "--json", "--store", n.store, "--listen", "127.0.0.1:0", "--http", "")
	n.cmd.Stderr = log
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var said struct{ Service, Address string }
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			return errors.Join(fmt.Errorf("the node says %q: %w", lines.Bytes(), err), n.kill())
		}
		if said.Service == "grpc" {
			n.grpc = said.Address
			return nil
		}
	}
	return fmt.Errorf("the node does not serve: %w\n%s", n.cmd.Wait(), n.logged())
}

// logged returns the end of the log.
func (n *nodeProcess) logged() string {
	b, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// stop ends the node in order.
func (n *nodeProcess) stop() error {
	n.hangUp()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := n.cmd.Wait(); err != nil {
		return fmt.Errorf("the node ended with %w\n%s", err, n.logged())
	}
	return nil
}

// kill ends it without a word.
func (n *nodeProcess) kill() error {
	n.hangUp()
	if err := n.cmd.Process.Kill(); err != nil {
		return err
	}
	n.cmd.Wait() // says that it was killed
	return nil
}

// check has the whole store read, by the node itself while it runs.
func (n *nodeProcess) check(ctx context.Context) error {
	_, err := run(ctx, command{args: []string{n.bin, "--store", n.store, "check", "--read-data"}})
	return err
}

// dial makes a connection that ends with the node.
func (n *nodeProcess) dial() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+n.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		n.conns = append(n.conns, conn)
	}
	return conn, err
}

func (n *nodeProcess) hangUp() {
	for _, c := range n.conns {
		c.Close() // of no interest any more
	}
	n.conns = nil
}

// as adds the token to a call.
func (n *nodeProcess) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+n.token)
}

// client is a verb of the command line that goes to the node at an address.
func (n *nodeProcess) client(address string, args ...string) command {
	return command{args: append([]string{n.bin, "--node", address}, args...), env: []string{"SCALE_TOKEN=" + n.token}}
}

// peak returns the most memory that the node has had resident.
func (n *nodeProcess) peak() (int64, error) { return peakOf(strconv.Itoa(n.cmd.Process.Pid)) }

// peakOf is of a process, by its name in /proc.
func peakOf(process string) (int64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", process, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// clockTicks is how many there are in a second of /proc/PID/stat, on every Linux that Go
// runs on.
const clockTicks = 100

// cpu returns the seconds of CPU that the node has taken.
func (n *nodeProcess) cpu() (float64, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The name, which may hold spaces, ends with the last ")".
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("stat of the node: %q", b)
	}
	sum := 0.0
	for _, ticks := range f[11:13] { // utime, stime
		t, err := strconv.ParseFloat(string(ticks), 64)
		if err != nil {
			return 0, err
		}
		sum += t / clockTicks
	}
	return sum, nil
}

// A relay passes connections on to a node and counts their bytes, those of TCP and IP not
// included.
type relay struct {
	listener net.Listener
	to       string
	bytes    atomic.Int64 // both ways
	running  sync.WaitGroup
}

func newRelay(to string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, to: to}
	r.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			r.running.Go(func() { r.pass(c) })
		}
	})
	return r, nil
}

// close waits for connections to be closed by their ends.
func (r *relay) close() error {
	err := r.listener.Close()
	r.running.Wait()
	return err
}

func (r *relay) pass(client net.Conn) {
	defer client.Close()
	node, err := net.Dial("tcp", r.to)
	if err != nil {
		return // the client sees it
	}
	defer node.Close()
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(client, io.TeeReader(node, r)) // ends when either is closed
		client.Close()
	})
	io.Copy(node, io.TeeReader(client, r))
	node.Close()
	back.Wait()
}

func (r *relay) Write(p []byte) (int, error) {
	r.bytes.Add(int64(len(p)))
	return len(p), nil
}
