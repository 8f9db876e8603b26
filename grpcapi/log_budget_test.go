package grpcapi

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// TestFailedCallsDoNotFillTheLog: a caller whose calls fail, or who resets them, has a bounded
// number of lines, and the log says how many there were more. Others have their own.
func TestFailedCallsDoNotFillTheLog(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	n := newRawNode(t, func(n *rawNode) {
		n.opt.Authenticate = func(ctx context.Context) (Identity, error) {
			id, err := knownByName(ctx)
			id.Scope = write
			return id, err
		}
		n.opt.Now = func() time.Time { return time.Unix(0, clock.Load()) }
	})
	lines := func(who string) (logged, more int) {
		for line := range strings.SplitSeq(n.log.String(), "\n") {
			switch {
			case !strings.Contains(line, "who=\""+who+"\"") && !strings.Contains(line, "who="+who+" "):
			case strings.Contains(line, "msg=call ") && !strings.Contains(line, "code=OK"):
				logged++
			case strings.Contains(line, "more calls failed"):
				var calls int
				if _, err := fmt.Sscanf(line[strings.Index(line, "calls="):], "calls=%d", &calls); err != nil {
					t.Errorf("%q: %v", line, err)
				}
				more += calls
			}
		}
		return logged, more
	}
	const resets, fails = 150, 50
	noisy, quiet := metadata.AppendToOutgoingContext(n.ctx, "name", "noisy"), metadata.AppendToOutgoingContext(n.ctx, "name", "quiet")
	underWay := func(calls int) {
		n.until(fmt.Sprintf("%d calls are under way", calls), func() bool {
			n.srv.mu.Lock()
			defer n.srv.mu.Unlock()
			return len(n.srv.calls) == calls
		})
	}
	for range resets {
		ctx, cancel := context.WithCancel(noisy)
		put, err := n.datasets.Put(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := put.Send(fileHeader("reset")); err != nil {
			t.Fatal(err)
		}
		underWay(1)
		cancel()
		if err := put.RecvMsg(&scalev1.PutResponse{}); status.Code(err) != codes.Canceled {
			t.Fatal(err)
		}
		underWay(0)
	}
	for range fails {
		if _, err := n.datasets.Stat(noisy, &scalev1.StatRequest{Ref: "nothing"}); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	if _, err := n.datasets.Stat(quiet, &scalev1.StatRequest{Ref: "nothing"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	// A call that goes well is logged where it always is.
	if _, err := n.datasets.Remove(noisy, &scalev1.RemoveRequest{Name: n.putFileAs(noisy, "x")}); err != nil {
		t.Fatal(err)
	}
	n.stop() // after which the resets have all been noticed
	logged, more := lines("noisy")
	if logged != linesOfOne {
		t.Errorf("%d lines of one caller, want %d", logged, linesOfOne)
	}
	if logged+more != resets+fails {
		t.Errorf("%d lines and %d more, of %d calls", logged, more, resets+fails)
	}
	if !strings.Contains(n.log.String(), "level=INFO msg=call method="+scalev1.DatasetService_Remove_FullMethodName+" code=OK") {
		t.Error("a name was removed, and the log does not say so")
	}
	if logged, more := lines("quiet"); logged != 1 || more != 0 {
		t.Errorf("%d lines and %d more of another caller", logged, more)
	}
}

// putFileAs puts a dataset in another name than the one of the harness.
func (n *rawNode) putFileAs(ctx context.Context, name string) string {
	n.t.Helper()
	if _, err := n.put(ctx, fileHeader(name), dataPart([]byte(name))); err != nil {
		n.t.Fatal(err)
	}
	return name
}

// TestHangUpsDoNotFillTheLog: so have the connections of one address that are closed.
func TestHangUpsDoNotFillTheLog(t *testing.T) {
	n, _ := newTimedNode(t, Limits{})
	conns := make([]*limitedConn, 5*linesOfOne)
	for i := range conns {
		ours, _ := net.Pipe()
		conns[i] = newLimitedConn(ours)
	}
	if got := n.srv.hangUp(conns); got != len(conns) {
		t.Errorf("%d connections are closed, want %d", got, len(conns))
	}
	if got := strings.Count(n.log.String(), "connection closed"); got != linesOfOne {
		t.Errorf("%d lines of %d connections, want %d", got, len(conns), linesOfOne)
	}
	n.stop()
	if want := fmt.Sprintf("calls=%d", len(conns)-linesOfOne); !strings.Contains(n.log.String(), want) {
		t.Errorf("the log does not say %q", want)
	}
}

func TestLogBudget(t *testing.T) {
	now := time.Unix(1e9, 0)
	b := newLogBudget(now)
	took := func(who string, n int) (lines int) {
		for range n {
			if b.take(who, now) {
				lines++
			}
		}
		return lines
	}
	if got := took("a", 100); got != linesOfOne {
		t.Errorf("%d lines at once, want %d", got, linesOfOne)
	}
	if got := b.omissions(now, false); got != nil {
		t.Errorf("told too soon: %v", got)
	}
	now = now.Add(omitEvery)
	if got := b.omissions(now, false); len(got) != 1 || got[0] != (omission{"a", 100 - linesOfOne}) {
		t.Errorf("left out: %v", got)
	}
	if got, want := took("a", 100), int(omitEvery/lineOfOne); got != want {
		t.Errorf("%d lines after %v, want %d", got, omitEvery, want)
	}
	// Many callers together have a bound, and so has what is remembered of them.
	lines := 0
	for i := range 10 * mostLiners {
		lines += took(fmt.Sprint("caller ", i, strings.Repeat("x", 10*mostLiner)), 2)
	}
	if lines > linesOfAll {
		t.Errorf("%d lines of all, want at most %d", lines, linesOfAll)
	}
	if len(b.by) > mostLiners+1 {
		t.Errorf("%d callers are remembered", len(b.by))
	}
	told := b.omissions(now, true)
	if len(told) != omitCallers+1 || told[omitCallers].who != others {
		t.Errorf("%d callers are named: %v", len(told), told[:min(len(told), 3)])
	}
	all := 0
	for _, o := range told {
		all += o.calls
	}
	if want := 100 - int(omitEvery/lineOfOne) + 20*mostLiners - lines; all != want {
		t.Errorf("%d calls left out, want %d", all, want)
	}
	now = now.Add(time.Hour)
	if b.omissions(now, false); len(b.by) != 0 {
		t.Errorf("%d callers are remembered for ever", len(b.by))
	}
	if got := took("a", 100); got != linesOfOne {
		t.Errorf("%d lines an hour later, want %d", got, linesOfOne)
	}
}
