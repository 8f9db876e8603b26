package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/anchor"
	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store/check"
)

const seizure = "\x1b]0;owned\x07\x1b[2J\u009b\xff\u202e\u2066"

// TestNodeText: what a node says is shown in one line that does nothing to a terminal, and
// not without end.
func TestNodeText(t *testing.T) {
	words := "no such name\nscale: done " + strings.ToValidUTF8(seizure, "") + strings.Repeat("x", 20_000)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(codes.NotFound, words) }))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.Stop()
		<-served
	}()
	for _, verb := range []string{"ls", "check", "log"} {
		stdout, stderr, code := runVerb(t, verb, "--node", l.Addr().String())
		line, last := strings.CutSuffix(stderr, "\n")
		if code != exitNotFound || stdout != "" || !last || grpcapi.Plain(line) != line || len(line) > 1200 || !strings.Contains(line, `no such name\nscale: done \x1b]0;owned`) {
			t.Errorf("%s: exit code %d, %d bytes: %.300q %.300q", verb, code, len(stderr), stdout, stderr)
		}
	}
}

// TestPrintedPlain: wherever text for people is printed, only line breaks of our own are left.
func TestPrintedPlain(t *testing.T) {
	const shown = `\x1b]0;owned\a\x1b[2J\u009b\xff\u202e\u2066`
	var out, errs strings.Builder
	a := newApp()
	a.stdout.Reset(&out)
	a.stderr, a.meter = &errs, nil
	for what, c := range map[string]struct {
		print func()
		want  string
	}{
		"an error of two lines": {func() { a.report(fmt.Errorf("%s\nrun: scale --help", seizure), 1) }, "scale: " + shown + "\nrun: scale --help\n"},
		"a note":                {func() { a.note("made\n%s, %v", seizure+"\n", errors.New(seizure+"\n")) }, "made\n" + shown + `\n, ` + shown + "\\n\n"},
		"a warning":             {func() { slog.New(noteHandler{a}).Warn("again", "after", errors.New(seizure+"\n")) }, "scale: again; after: " + shown + "\\n\n"},
		"fields":                {func() { a.printFields(field{"name", seizure + "\n"}) }, "name         " + shown + "\\n\n"},
		"a finding": {func() { a.printFinding(check.Finding{Severity: check.Error, What: seizure + "\n", Do: seizure + "\n"}) },
			"error: " + shown + "\\n\n  to do: " + shown + "\\n\n"},
		"a balance": {func() { a.printBalance("k2", &anchor.Balance{Coin: seizure + "\n"}) }, "k2       0 " + shown + "\\n in \n"},
		"progress":  {func() { (&meter{w: &errs}).show(seizure + "\n") }, "\r\x1b[K" + shown + `\n`},
	} {
		out.Reset()
		errs.Reset()
		c.print()
		a.stdout.Flush()
		if got := out.String() + errs.String(); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
}
