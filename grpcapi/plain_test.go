package grpcapi

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/check"
)

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		`a "b" \c päth файл 文`:   `a "b" \c päth файл 文`,
		"\ufffd":                 "\ufffd",
		"a\nb\r\t\x00\x7f":       `a\nb\r\t\x00\x7f`,
		"\x1b]0;title\x07\u009b": `\x1b]0;title\a\u009b`,
		"a\xffb\xe2\x80":         `a\xffb\xe2\x80`,
		"\u202e\u2066\u200b":     `\u202e\u2066\u200b`,
		"\u2028\u00ad\U000e0041": `\u2028\u00ad\U000e0041`,
	} {
		got := Plain(in)
		if got != want {
			t.Errorf("Plain(%q) = %s, want %s", in, got, want)
		}
		if again := Plain(got); again != got {
			t.Errorf("Plain(%q) = %s", got, again)
		}
	}
}

const seizure = "no such name\nscale: done\x1b]0;owned\x07\x1b[2J\u202e\u2066"

// evil is text that takes a terminal over, and has no end. Two of it fill the headers.
var evil = seizure + strings.Repeat("x", 20_000)

// tame fails unless text can be shown.
func tame(t *testing.T, what, text string) {
	t.Helper()
	if text == "" || Plain(text) != text || len(text) > maxErrorText+200 {
		t.Errorf("%s says %d bytes: %.200q", what, len(text), text)
	}
}

// TestClientHostileText has a node say what takes a terminal over, wherever it has words.
func TestClientHostileText(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	must(n.store.Put(ctx, []store.Input{{Name: "d", Reader: strings.NewReader("d")}}, store.PutOptions{}))
	proxy := startGRPCProxy(t, n.addr)
	var log strings.Builder
	dial := func() (*Client, error) {
		return Dial(ctx, proxy.addr, DialOptions{Patience: time.Nanosecond, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	}
	c := must(dial())
	defer c.Close()

	for _, code := range []codes.Code{codes.NotFound, codes.Internal, codes.Unavailable, codes.Unknown} {
		proxy.mu.Lock()
		proxy.refuse = func(string) error {
			st, err := status.New(code, evil).WithDetails(&errdetails.Help{Links: []*errdetails.Help_Link{{Description: seizure}}},
				&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Nanosecond)})
			if err != nil {
				t.Error(err)
			}
			return st.Err()
		}
		proxy.mu.Unlock()
		_, err := dial()
		if err == nil {
			t.Fatalf("%v: connected", code)
		}
		tame(t, "the first call, "+code.String(), err.Error())
		if _, err = c.Resolve(ctx, "d"); err == nil {
			t.Fatalf("%v: resolved", code)
		}
		tame(t, code.String(), err.Error())
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) {
			tame(t, "the hint of "+code.String(), hinted.Hint())
		}
		var later *RetryAfter
		if errors.As(err, &later) {
			tame(t, "what passes, of "+code.String(), later.Error())
		}
	}
	if s := log.String(); !strings.Contains(s, "repeated") || strings.Contains(s, `\u001b`) || strings.Contains(s, "\u202e") {
		t.Errorf("the log says %.500s", s)
	}
	proxy.mu.Lock()
	proxy.refuse = nil
	proxy.mu.Unlock()

	proxy.set(onlyThat(t, scalev1.NodeService_GetInfo_FullMethodName, func(_ int, m *scalev1.GetInfoResponse) {
		m.ReadOnly, m.Version = evil, evil
	}), nil)
	doubtful := must(dial())
	defer doubtful.Close()
	tame(t, "the doubt", doubtful.Doubt().Error())
	tame(t, "the version", doubtful.info.Version)

	proxy.set(checked(t, &scalev1.CheckSummary{Errors: 1},
		&scalev1.CheckResponse{Part: &scalev1.CheckResponse_Progress{Progress: &scalev1.CheckProgress{Stage: evil}}},
		&scalev1.CheckResponse{Part: &scalev1.CheckResponse_Finding{Finding: &scalev1.CheckFinding{Severity: "error", What: evil, Do: evil, Affected: []string{evil}}}}), nil)
	must(c.Check(ctx, check.Options{
		Report: func(f check.Finding) {
			tame(t, "a finding", f.What)
			tame(t, "its remedy", f.Do)
			if len(f.Affected) != 1 || len(f.Affected[0]) > maxRef {
				t.Errorf("%d bytes are affected", len(f.Affected[0]))
			}
		},
		Progress: func(p check.Progress) { tame(t, "the progress", p.Stage) },
	}))

	tame(t, "TLS", (&TrustError{Err: errors.New(evil)}).Error())
	tame(t, "TLS that is refused", (&TrustError{Refused: true, Err: errors.New(evil)}).Error())
	if err := callError(context.Background(), status.Error(codes.Internal, evil)); !errors.Is(err, ErrNode) {
		t.Error(err)
	} else {
		tame(t, "the transport", err.Error())
	}
}
