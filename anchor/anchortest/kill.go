package anchortest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/koii-network/scale/anchor"
)

// A Dying process kills itself at the nth point at which that could leave something
// behind.
type Dying struct {
	left int
	last string
}

// NewDying returns what dies at point n, counted from 1.
func NewDying(n int) *Dying { return &Dying{left: n} }

// dies is what a process prints before it does.
const dies = "dies:"

// Point counts a point. To do the same once more changes nothing, and is none.
func (d *Dying) Point(name string) {
	if name == d.last {
		return
	}
	d.last = name
	if d.left--; d.left == 0 {
		fmt.Println(dies, name)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// Outbox has a point before and after each write.
func (d *Dying) Outbox(o anchor.Outbox) anchor.Outbox { return &dyingOutbox{o, d} }

type dyingOutbox struct {
	anchor.Outbox
	d *Dying
}

func (o *dyingOutbox) Put(ctx context.Context, name string, size int64, row []byte, open bool) error {
	r, err := anchor.DecodeRow(row)
	if err != nil {
		return err
	}
	o.d.Point("before " + r.State.String())
	err = o.Outbox.Put(ctx, name, size, row, open)
	o.d.Point("after " + r.State.String())
	return err
}

func (o *dyingOutbox) PutBody(ctx context.Context, name string, size int64, body []byte) error {
	err := o.Outbox.PutBody(ctx, name, size, body)
	o.d.Point("after the body")
	return err
}

// Chain has a point after each call that matters; that before it is the outbox's.
func (d *Dying) Chain(c anchor.Chain) anchor.Chain { return &dyingChain{c, d} }

type dyingChain struct {
	anchor.Chain
	d *Dying
}

func (c *dyingChain) Prepare(ctx context.Context, j anchor.Job) (anchor.Tx, error) {
	tx, err := c.Chain.Prepare(ctx, j)
	c.d.Point("after prepare")
	return tx, err
}

func (c *dyingChain) Send(ctx context.Context, tx anchor.Tx, body []byte) error {
	err := c.Chain.Send(ctx, tx, body)
	c.d.Point("after send")
	return err
}

// childEnv gives the test binary a task, in place of its tests.
const childEnv = "SCALE_TEST_CHILD"

// Child does the task that this process was started for, if it was, and does not return
// then. TestMain calls it first.
func Child[T any](do func(T) error) {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	var task T
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = do(task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RunChild starts the test binary with a task for Child, and reports whether it died at
// its point; if not, it came to its end.
func RunChild(t testing.TB, task any) (died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	out, err := cmd.CombinedOutput()
	died = strings.Contains(string(out), dies)
	if err != nil && !died {
		t.Fatalf("child: %v: %s", err, out)
	}
	t.Logf("%s", out)
	return died
}
