// Command scale puts datasets into a SCALE store, gets them back, and proves and
// verifies what is in them. "scale help" lists the verbs; each verb has a file here.
//
// It wires packages together and decides nothing about formats: output.go says what
// is printed where, exit.go which error ends the process with which code.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// The memory this process may take is bounded by fixed pools in the engine; the limit
// makes the garbage collector work harder before a put or get leaves 400 MiB.
const memoryLimit = 200 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	// A closed pipe is an error to clean up after, not a reason to die in the middle:
	// asked for, the signal leaves it to write to fail. See exit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		// A second one ends the process at once. It is received, so that none is lost, and
		// raised again, so that the process ends as by that signal.
		sig := (<-signals).(syscall.Signal)
		signal.Reset(sig)
		syscall.Kill(os.Getpid(), sig)
	}()
	a := newApp()
	err := a.run(ctx, os.Args[1:])
	a.exit(err)
}
