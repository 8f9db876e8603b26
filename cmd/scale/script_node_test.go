package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/koii-network/scale/store"
)

// A scriptNode is the node of a script, if one runs.
type scriptNode struct {
	p       *nodeProcess
	running bool
}

type scriptNodeKey struct{}

// node [FLAG...] runs "scale serve" on free ports of loopback. $NODE and $HTTP are then
// the addresses. The flags come after those for the ports.
func cmdNode(ts *testscript.TestScript, neg bool, args []string) {
	n := ts.Value(scriptNodeKey{}).(*scriptNode)
	if neg || n.running {
		ts.Fatalf("usage: node [FLAG...], one at a time")
	}
	path, err := exec.LookPath("scale")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"serve", "--json", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "SCALE_STORE=" + ts.Getenv("SCALE_STORE"), "GORACE=" + ts.Getenv("GORACE")}
	n.p = &nodeProcess{cmd: cmd, out: newLines(), log: newLines(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = n.p.out, n.p.log
	ts.Check(cmd.Start())
	n.running = true
	go func() {
		n.p.err = cmd.Wait()
		n.p.out.close()
		n.p.log.close()
		close(n.p.exited)
	}()
	ts.Defer(func() {
		cmd.Process.Kill() // fails if it has ended, which is as good
		<-n.p.exited
	})
	for variable, service := range map[string]string{"NODE": "grpc", "HTTP": "http"} {
		line, ok := n.p.out.wait(func(line string) bool { return strings.Contains(line, `"service":"`+service+`"`) })
		if !ok {
			ts.Fatalf("the node does not serve %s:\n%s", service, n.p.log.tail(20))
		}
		var at struct{ Address string }
		ts.Check(json.Unmarshal([]byte(line), &at))
		ts.Setenv(variable, at.Address)
	}
}

// nodeends CODE sends the node SIGTERM and waits for it to exit with the code. Its log is then in the file node.log, what it printed in node.out.
func cmdNodeEnds(ts *testscript.TestScript, neg bool, args []string) {
	n := ts.Value(scriptNodeKey{}).(*scriptNode)
	if neg || !n.running || len(args) != 1 {
		ts.Fatalf("usage: nodeends CODE")
	}
	ts.Check(n.p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-n.p.exited:
	case <-time.After(patient):
		ts.Fatalf("the node does not end:\n%s", n.p.log.tail(20))
	}
	n.running = false
	ts.Check(os.WriteFile(ts.MkAbs("node.log"), []byte(n.p.log.tail(1<<20)+"\n"), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("node.out"), []byte(n.p.out.tail(1<<20)+"\n"), 0o644))
	if got := codeOf(ts, n.p.err); fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s\n%s", got, args[0], n.p.log.tail(20))
	}
}

// locked STORE holds a store, and serves it to nobody, until its standard input ends: as
// an owner does that has not begun to listen, or listens no more.
func lockedStore() {
	lock, err := store.AcquireLock(context.Background(), os.Args[1], 0, "a lock")
	if err != nil {
		fail("%v", err)
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fail("%v", err)
	}
	if err := lock.Release(); err != nil {
		fail("%v", err)
	}
}
