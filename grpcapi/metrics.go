package grpcapi

import (
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Metrics counts what a node does, for Prometheus. All begins at zero with the process. It
// is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	puts         *prometheus.CounterVec // by result
	putSeconds   prometheus.Histogram
	in, new, put plainBytes

	commitSeconds prometheus.Histogram
	commitEntries prometheus.Histogram
	proofs        *prometheus.CounterVec // by result
	proofSeconds  prometheus.Histogram
	audits        *prometheus.CounterVec // by result
	read          prometheus.Counter

	calls       *prometheus.CounterVec // by method and code
	callSeconds *prometheus.HistogramVec
	errors      *prometheus.CounterVec // by reason

	anchors anchorMetrics
}

// plainBytes is a counter that ratios can be computed from.
type plainBytes struct{ n atomic.Uint64 }

func (b *plainBytes) value() float64 { return float64(b.n.Load()) }

const (
	resultOK        = "ok"
	resultUnchanged = "unchanged"
	resultFailed    = "failed"
)

// NewMetrics makes metrics of a program of that version.
func NewMetrics(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scale_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scale_" + name, Help: help, Buckets: buckets})
		m.registry.MustRegister(h)
		return h
	}
	bytes := func(name, help string, b *plainBytes) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "scale_" + name, Help: help}, b.value))
	}
	ratio := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scale_" + name, Help: help}, f))
	}
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 18) // half a millisecond to a minute

	m.puts = counter("puts_total", "Datasets put, by result: ok, unchanged (the newest version was that very dataset) or failed.", "result")
	m.putSeconds = histogram("put_duration_seconds", "How long puts took.", seconds)
	bytes("put_bytes_total", "Plain bytes of the datasets put.", &m.in)
	bytes("put_new_bytes_total", "Plain bytes of them that were not stored before.", &m.new)
	bytes("put_stored_bytes_total", "Bytes that the new ones took on disk.", &m.put)
	ratio("dedup_ratio", "Share of the bytes put that were stored before, 0 to 1.", func() float64 {
		if m.in.value() == 0 {
			return 0
		}
		return max(1-m.new.value()/m.in.value(), 0)
	})
	ratio("compression_ratio", "Bytes on disk for each new plain byte; NaN before the first.", func() float64 {
		if m.new.value() == 0 {
			return math.NaN()
		}
		return m.put.value() / m.new.value()
	})
	m.commitSeconds = histogram("commit_duration_seconds", "How long commits of the ledger took.", seconds)
	m.commitEntries = histogram("commit_entries", "Entries that shared a commit.", prometheus.ExponentialBuckets(1, 2, 10))
	m.proofs = counter("proofs_total", "Proofs made, by result: ok or failed.", "result")
	m.proofSeconds = histogram("proof_duration_seconds", "How long proofs took.", seconds)
	m.audits = counter("audits_total", "Challenges answered, by result: ok or failed.", "result")
	m.read = counter("read_bytes_total", "Plain bytes read from the packs and checked, or given in their frame for the caller to check.").WithLabelValues()
	m.calls = counter("calls_total", "Calls that ended, by method and gRPC code.", "method", "code")
	m.callSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "scale_call_duration_seconds", Help: "How long calls took, streams included, by method.", Buckets: seconds,
	}, []string{"method"})
	m.errors = counter("errors_total", "Calls that failed and requests that were refused, by the reason that their caller was told.", "reason")
	m.anchors.init(counter)
	for _, result := range []string{resultOK, resultUnchanged, resultFailed} {
		m.puts.WithLabelValues(result)
	}
	for _, result := range []string{resultOK, resultFailed} {
		m.proofs.WithLabelValues(result)
		m.audits.WithLabelValues(result)
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scale_build_info", Help: "Version of the program."}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.callSeconds, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observer returns what goes into the options of the store.
func (m *Metrics) Observer() store.Observer {
	return store.Observer{
		Put: func(e store.PutEvent) {
			if e.Err != nil {
				m.puts.WithLabelValues(resultFailed).Add(float64(max(e.Datasets, 1)))
				return
			}
			m.puts.WithLabelValues(resultOK).Add(float64(e.Datasets - e.Unchanged))
			m.puts.WithLabelValues(resultUnchanged).Add(float64(e.Unchanged))
			m.putSeconds.Observe(e.Took.Seconds())
			m.in.n.Add(e.Bytes)
			m.new.n.Add(e.New)
			m.put.n.Add(e.Stored)
		},
		Commit: func(entries int, took time.Duration) {
			m.commitSeconds.Observe(took.Seconds())
			m.commitEntries.Observe(float64(entries))
		},
		Proof: func(took time.Duration, err error) {
			m.proofs.WithLabelValues(resultOf(err)).Inc()
			m.proofSeconds.Observe(took.Seconds())
		},
		Read: func(bytes int) { m.read.Add(float64(bytes)) },
	}
}

func resultOf(err error) string {
	if err != nil {
		return resultFailed
	}
	return resultOK
}

// Watch adds what can be read off a server at any time: the size of its ledger, and how
// many calls are under way. It is for one server, once.
func (m *Metrics) Watch(s *Server) {
	m.watch(func() int64 { return s.store.Published().Size }, s.callsUnderWay)
}

func (m *Metrics) watch(ledger, calls func() int64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scale_ledger_entries", Help: "Entries of the ledger."},
			func() float64 { return float64(ledger()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scale_calls_in_flight", Help: "Calls that have not ended."},
			func() float64 { return float64(calls()) }))
}

func (s *Server) callsUnderWay() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.calls))
}

// OnCall counts a call that has ended, for ServerOptions.
func (m *Metrics) OnCall(c Call) {
	method := c.Method
	if _, known := methods[method]; !known { // callers must not make labels
		method = "other"
	}
	m.calls.WithLabelValues(method, status.Code(c.Err).String()).Inc()
	m.callSeconds.WithLabelValues(method).Observe(c.Took.Seconds())
	if method == scalev1.AuditService_Challenge_FullMethodName {
		m.audits.WithLabelValues(resultOf(c.Err)).Inc()
	}
	if c.Err != nil {
		m.errors.WithLabelValues(reasonOf(c.Err)).Inc()
	}
}

// OnRefused counts what was refused before it became a call, for ServerOptions and
// HTTPOptions.
func (m *Metrics) OnRefused(err error) {
	m.errors.WithLabelValues(reasonOf(toStatus(err).Err())).Inc()
}

// reasonOf returns the reason that a status carries, or else its code.
func reasonOf(err error) string {
	s := status.Convert(err)
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			if _, known := scalev1.ErrorReason_value["ERROR_REASON_"+info.GetReason()]; known {
				return strings.ToLower(info.GetReason())
			}
		}
	}
	return strings.ToLower(s.Code().String())
}

// Handler answers requests of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, MaxRequestsInFlight: 4})
}
