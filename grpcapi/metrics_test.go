package grpcapi

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koii-network/scale/store"
)

// sample returns the value of a line of /metrics, "" if it is not there.
func sample(text, series string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSuffix(v, "\n")
		}
	}
	return ""
}

func scrape(m *Metrics) string {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	m := NewMetrics("v1.2.3")
	m.watch(func() int64 { return 42 }, func() int64 { return 7 })
	expect := func(want map[string]string) {
		t.Helper()
		text := scrape(m)
		for series, v := range want {
			if got := sample(text, series); got != v {
				t.Errorf("%s is %q, want %q", series, got, v)
			}
		}
	}
	expect(map[string]string{
		"scale_puts_total{result=\"ok\"}": "0", "scale_put_bytes_total": "0", "scale_dedup_ratio": "0", "scale_compression_ratio": "NaN",
		"scale_ledger_entries": "42", "scale_calls_in_flight": "7", "scale_build_info{version=\"v1.2.3\"}": "1",
		"scale_audits_total{result=\"ok\"}": "0",
	})
	o := m.Observer()
	o.Put(store.PutEvent{Datasets: 3, Unchanged: 1, Bytes: 1000, New: 400, Stored: 100, Took: time.Second})
	o.Put(store.PutEvent{Datasets: 2, Err: errors.New("no")})
	o.Put(store.PutEvent{Err: errors.New("no")})
	o.Commit(2, 3*time.Millisecond)
	o.Commit(6, 3*time.Millisecond)
	o.Proof(time.Millisecond, nil)
	o.Proof(time.Millisecond, store.ErrNotFound)
	o.Read(4096)
	m.OnCall(Call{Method: "/scale.v1.AuditService/Challenge", Took: time.Second})
	m.OnCall(Call{Method: "/scale.v1.AuditService/Challenge", Err: toStatus(store.ErrNotFound).Err()})
	m.OnCall(Call{Method: "/scale.v1.DatasetService/Get", Err: toStatus(ErrToken).Err()})
	m.OnCall(Call{Method: "/made.up/Name", Err: status.Error(codes.Unimplemented, "")})
	m.OnCall(Call{Method: "/made.up/Other", Err: status.Error(codes.Unimplemented, "")})
	expect(map[string]string{
		"scale_puts_total{result=\"ok\"}": "2", "scale_puts_total{result=\"unchanged\"}": "1", "scale_puts_total{result=\"failed\"}": "3",
		"scale_put_bytes_total": "1000", "scale_put_new_bytes_total": "400", "scale_put_stored_bytes_total": "100",
		"scale_dedup_ratio": "0.6", "scale_compression_ratio": "0.25", "scale_put_duration_seconds_count": "1",
		"scale_commit_duration_seconds_count": "2", "scale_commit_entries_sum": "8", `scale_commit_entries_bucket{le="2"}`: "1",
		"scale_proofs_total{result=\"ok\"}": "1", "scale_proofs_total{result=\"failed\"}": "1", "scale_read_bytes_total": "4096",
		"scale_audits_total{result=\"ok\"}": "1", "scale_audits_total{result=\"failed\"}": "1",
		`scale_calls_total{code="OK",method="/scale.v1.AuditService/Challenge"}`:              "1",
		`scale_calls_total{code="Unauthenticated",method="/scale.v1.DatasetService/Get"}`:     "1",
		`scale_calls_total{code="Unimplemented",method="other"}`:                              "2",
		`scale_call_duration_seconds_count{method="/scale.v1.AuditService/Challenge"}`:        "2",
		`scale_errors_total{reason="not_found"}`:                                              "1",
		`scale_errors_total{reason="token"}`:                                                  "1",
		`scale_errors_total{reason="unimplemented"}`:                                          "2",
		`scale_call_duration_seconds_bucket{method="/scale.v1.AuditService/Challenge",le=""}`: "",
	})
	if text := scrape(m); strings.Contains(text, "made.up") || !strings.Contains(text, "go_goroutines") || !strings.Contains(text, "process_open_fds") {
		t.Error("labels by callers, or collectors missing")
	}
}
