package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"syscall"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/ledger"
	"github.com/koii-network/scale/dag/proof"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
	"github.com/koii-network/scale/store/kv"
)

// Exit codes. They are part of the interface and never change their meaning.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitRefused  = 4 // verification refused, or data corrupt
	exitBusy     = 5
	exitNoSpace  = 6
	exitSkipped  = 7 // done, but --skip-unreadable left something out
	// Something elsewhere cannot be reached, or has no time for us now: a node, a chain; or
	// an anchor is not final yet. It says nothing about the data, and the same command may
	// succeed later.
	exitElsewhere = 8
)

var (
	errUsage   = errors.New("usage")
	errSkipped = errors.New("not everything was put")
	// errInterrupted: a signal asked this process to end.
	errInterrupted = errors.New("interrupted")
	// errDamaged: check found something wrong.
	errDamaged = errors.New("the store is damaged")
)

// exitCodes is the one table from errors to exit codes. The first match counts.
var exitCodes = []struct {
	err  error
	code int
}{
	{errUsage, exitUsage},
	{errInterrupted, exitFailed},
	{errSkipped, exitSkipped},
	{grpcapi.ErrTrust, exitFailed},
	{grpcapi.ErrUnreachable, exitElsewhere},
	{grpcapi.ErrClosing, exitElsewhere},
	{grpcapi.ErrLater, exitElsewhere},
	{grpcapi.ErrNode, exitRefused},
	{grpcapi.ErrToken, exitFailed},
	{grpcapi.ErrScope, exitFailed},
	{anchor.ErrForged, exitRefused},
	{anchor.ErrNotFinal, exitElsewhere},
	{anchor.ErrUnavailable, exitElsewhere},
	{anchor.ErrNoChain, exitNotFound},
	{anchor.ErrConfig, exitUsage},
	{store.ErrBusy, exitBusy},
	{store.ErrNoSpace, exitNoSpace},
	{kv.ErrNoSpace, exitNoSpace},
	{syscall.ENOSPC, exitNoSpace},
	{syscall.EDQUOT, exitNoSpace},
	{store.ErrKeys, exitFailed},
	{store.ErrFormat, exitFailed},
	{check.ErrFormat, exitFailed},
	{store.ErrInvalid, exitUsage},
	{path.ErrBadPattern, exitUsage},
	{proof.ErrNoKey, exitUsage},
	{proof.ErrRefused, exitRefused},
	{proof.ErrFormat, exitRefused},
	{audit.ErrRefused, exitRefused},
	{audit.ErrFormat, exitUsage},
	{errDamaged, exitRefused},
	{store.ErrCorrupt, exitRefused},
	{store.ErrMismatch, exitRefused},
	{store.ErrReadOnly, exitRefused}, // the ledger is not the one it was
	{ledger.ErrCorrupt, exitRefused},
	{dag.ErrFormat, exitRefused},
	{store.ErrNotFound, exitNotFound},
	{dag.ErrNotFound, exitNotFound},
	{fs.ErrNotExist, exitNotFound},
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	for _, e := range exitCodes {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	return exitFailed
}

// A usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string   { return e.err.Error() }
func (e usageError) Unwrap() []error { return []error{e.err, errUsage} }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// An evidence error adds fields to the JSON form of an error.
type evidence interface{ evidence() map[string]any }

// exit reports err and ends the process with its code.
func (a *app) exit(err error) {
	a.meter.clear()
	if errors.Is(err, syscall.EPIPE) {
		// Whoever read our output has had enough. Like other tools, end by the signal,
		// which the next write raises once nobody asks for it.
		signal.Reset(syscall.SIGPIPE)
		a.stdout.file.Write([]byte("\n"))
		os.Exit(exitFailed)
	}
	code := exitCode(err)
	if err != nil {
		a.report(err, code)
	}
	os.Exit(code)
}

func (a *app) report(err error, code int) {
	if !a.json {
		fmt.Fprintf(a.stderr, "scale: %s\n", plainLines(err.Error()))
		return
	}
	v := map[string]any{"error": err.Error(), "code": code}
	var locked *store.LockedError
	if errors.As(err, &locked) {
		v["pid"], v["command"] = locked.PID, locked.Command
	}
	var e evidence
	if errors.As(err, &e) {
		for k, val := range e.evidence() {
			v[k] = val
		}
	}
	writeJSON(a.stderr, v)
}
