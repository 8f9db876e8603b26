package grpcapi

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koii-network/scale/anchor"
)

// scrapeTime bounds how long the outbox is read for one answer to Prometheus.
const scrapeTime = 5 * time.Second

// An anchorMetrics tells how anchoring goes.
type anchorMetrics struct {
	transitions *prometheus.CounterVec // by chain and state
	fees        *prometheus.CounterVec // by chain

	published, seen, final, backlog, state, attempt, failing *prometheus.Desc
	balance, left                                            *prometheus.Desc
	from                                                     Anchors
}

// WatchAnchors adds what is known of anchors. It is for one server, once.
func (m *Metrics) WatchAnchors(a Anchors) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("scale_anchor_"+name, help, append([]string{"chain"}, labels...), nil)
	}
	m.anchors.from = a
	m.anchors.published = desc("ledger_entries", "Entries of the ledger that is anchored.")
	m.anchors.seen = desc("seen_entries", "Entries of the largest tree whose anchor is in a block.")
	m.anchors.final = desc("final_entries", "Entries of the largest tree whose anchor is final.")
	m.anchors.backlog = desc("backlog_entries", "Entries that no final anchor covers.")
	m.anchors.state = desc("open", "1 for the state of the newest anchor under way.", "state")
	m.anchors.attempt = desc("open_attempt", "Transactions signed for the newest anchor under way; 0 if there is none.")
	m.anchors.failing = desc("failing_seconds", "For how long steps have failed; 0 if the last one did not.")
	m.anchors.balance = desc("balance_coins", "What the wallet holds, as the chain said last.", "coin")
	m.anchors.left = desc("anchors_left", "How many more anchors the wallet pays for, where that is known.")
	m.registry.MustRegister(&m.anchors)
}

func (m *anchorMetrics) init(counter func(name, help string, labels ...string) *prometheus.CounterVec) {
	m.transitions = counter("anchor_transitions_total", "Transitions of anchors, by the state that they entered.", "chain", "state")
	m.fees = counter("anchor_fees_total", "Fees of transactions that entered a block, in the chain's smallest unit.", "chain")
}

// AnchorChanged counts a transition, for whatever anchors.
func (m *Metrics) AnchorChanged(r anchor.Row) {
	n := len(r.History)
	if n > 1 && r.History[n-2].State == r.State && r.History[n-2].Attempt == r.Attempt {
		return // more was said of the state it was in
	}
	m.anchors.transitions.WithLabelValues(r.Chain, r.State.String()).Inc()
	if paid(&r) {
		m.anchors.fees.WithLabelValues(r.Chain).Add(float64(r.Tx.Fee))
	}
}

// paid reports whether this transition is the first that finds the transaction in a block.
func paid(r *anchor.Row) bool {
	if r.State != anchor.Seen && r.State != anchor.Final {
		return false
	}
	for _, h := range r.History[:len(r.History)-1] {
		if h.Attempt == r.Attempt && (h.State == anchor.Seen || h.State == anchor.Final) {
			return false
		}
	}
	return true
}

// Describe implements prometheus.Collector.
func (m *anchorMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.published, m.seen, m.final, m.backlog, m.state, m.attempt, m.failing, m.balance, m.left} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *anchorMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	chains, _, err := m.from.Chains(ctx)
	if err != nil {
		return // the calls that ask the same tell why
	}
	for _, c := range chains {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{c.Chain}, labels...)...)
		}
		gauge(m.published, float64(c.Published))
		gauge(m.seen, float64(c.Seen))
		gauge(m.final, float64(c.Final))
		gauge(m.backlog, float64(c.Backlog))
		attempt := 0
		if c.Open != nil {
			attempt = c.Open.Attempt
		}
		for s := anchor.Pending; s <= anchor.Seen; s++ {
			is := 0.0
			if c.Open != nil && c.Open.State == s {
				is = 1
			}
			gauge(m.state, is, s.String())
		}
		gauge(m.attempt, float64(attempt))
		failing := 0.0
		if c.Failing != "" {
			// A chain that could not be set up has failed since the process began.
			if failing = 1; !c.Since.IsZero() {
				failing = max(failing, time.Since(c.Since).Seconds())
			}
		}
		gauge(m.failing, failing)
		if b := c.Balance; b != nil {
			gauge(m.balance, float64(b.Units)/math.Pow10(b.Decimals), b.Coin)
			if n := b.Anchors(); n >= 0 {
				gauge(m.left, float64(n))
			}
		}
	}
}
