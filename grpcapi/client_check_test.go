package grpcapi

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store/check"
)

// checked has a check of the node answer with these parts, and then the summary.
func checked(t *testing.T, sum *scalev1.CheckSummary, parts ...*scalev1.CheckResponse) tamper {
	var all [][]byte
	for _, p := range append(parts, &scalev1.CheckResponse{Part: &scalev1.CheckResponse_Summary{Summary: sum}}) {
		all = append(all, must(proto.Marshal(p)))
	}
	return func(method string, n int, b []byte) ([][]byte, error) {
		switch {
		case method != scalev1.NodeService_Check_FullMethodName:
			return [][]byte{b}, nil
		case n == 0:
			return all, nil
		}
		return nil, nil
	}
}

// A summary that leaves out what was found is not believed.
func TestClientCheckSummary(t *testing.T) {
	n := startClientNode(t)
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	finding := func(severity string) *scalev1.CheckResponse {
		return &scalev1.CheckResponse{Part: &scalev1.CheckResponse_Finding{Finding: &scalev1.CheckFinding{Severity: severity, What: "x"}}}
	}
	for _, f := range []struct {
		severities string
		sum        *scalev1.CheckSummary
		lie        bool
	}{
		{"error", &scalev1.CheckSummary{}, true},
		{"error error", &scalev1.CheckSummary{Errors: 1}, true},
		{"warning", &scalev1.CheckSummary{Errors: 1}, true},
		{"error warning", &scalev1.CheckSummary{Errors: 1, Warnings: 1}, false},
		{"error", &scalev1.CheckSummary{Errors: 30}, false}, // of which the first are told
		{"note", &scalev1.CheckSummary{}, false},            // that there are more
		{"", &scalev1.CheckSummary{}, false},
	} {
		var parts []*scalev1.CheckResponse
		for _, s := range strings.Fields(f.severities) {
			parts = append(parts, finding(s))
		}
		proxy.set(checked(t, f.sum, parts...), nil)
		sum, err := c.Check(t.Context(), check.Options{})
		if errors.Is(err, ErrNode) != f.lie || !f.lie && (err != nil || sum.Errors != f.sum.Errors) {
			t.Errorf("findings %q, summary %v: %+v, %v", f.severities, f.sum, sum, err)
		}
	}
}
