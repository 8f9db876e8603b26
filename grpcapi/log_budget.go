package grpcapi

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Lines of calls that failed, so that nobody fills the log: each caller has so many at once
// and one more in each time, and so have all together.
const (
	linesOfOne  = 30
	lineOfOne   = 2 * time.Second
	linesOfAll  = 300
	lineOfAll   = 200 * time.Millisecond
	mostLiners  = 1024 // callers that are told apart
	omitEvery   = 10 * time.Second
	omitCallers = 8 // that are named when lines were left out
	mostLiner   = 200
)

// A lineBucket is how many lines may be written now.
type lineBucket struct {
	most  int
	every time.Duration // between two more
	used  time.Duration // of most*every; it goes down as time passes
	at    time.Time
}

func (b *lineBucket) take(now time.Time) bool {
	b.pass(now)
	if b.used > time.Duration(b.most-1)*b.every {
		return false
	}
	b.used += b.every
	return true
}

func (b *lineBucket) pass(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.used, b.at = max(b.used-d, 0), now
	}
}

// A liner is one caller whose calls fail.
type liner struct {
	lineBucket
	omitted int
}

// A logBudget bounds the lines of calls that failed.
type logBudget struct {
	mu   sync.Mutex
	all  lineBucket // guarded by mu, as is all below
	by   map[string]*liner
	said time.Time // when omissions were told
}

func newLogBudget(now time.Time) *logBudget {
	return &logBudget{all: lineBucket{most: linesOfAll, every: lineOfAll, at: now}, by: map[string]*liner{}, said: now}
}

// others stands for callers beyond those that are told apart.
const others = "others"

// take reports whether a line of a caller may be written. Otherwise it is counted.
func (b *logBudget) take(who string, now time.Time) bool {
	if len(who) > mostLiner {
		who = who[:mostLiner]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.by[who]
	if l == nil && len(b.by) >= mostLiners {
		who = others
		l = b.by[who]
	}
	if l == nil {
		l = &liner{lineBucket: lineBucket{most: linesOfOne, every: lineOfOne, at: now}}
		b.by[who] = l
	}
	if !l.take(now) || !b.all.take(now) {
		l.omitted++
		return false
	}
	return true
}

// An omission says how many lines of a caller were left out.
type omission struct {
	who   string
	calls int
}

// omissions returns what was left out since they were told last, if it is time to, and
// forgets callers that have been quiet. At the end it is time.
func (b *logBudget) omissions(now time.Time, end bool) []omission {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !end && now.Sub(b.said) < omitEvery {
		return nil
	}
	b.said = now
	var all []omission
	for who, l := range b.by {
		if l.pass(now); l.omitted > 0 {
			all = append(all, omission{who, l.omitted})
			l.omitted = 0
		} else if l.used == 0 {
			delete(b.by, who)
		}
	}
	slices.SortFunc(all, func(a, b omission) int {
		return cmp.Or(cmp.Compare(b.calls, a.calls), cmp.Compare(a.who, b.who))
	})
	if len(all) > omitCallers {
		rest := omission{who: others}
		for _, o := range all[omitCallers:] {
			rest.calls += o.calls
		}
		all = append(all[:omitCallers], rest)
	}
	return all
}

// logOmitted says how many calls that failed were not logged.
func (s *Server) logOmitted(end bool) {
	for _, o := range s.lines.omissions(s.now(), end) {
		s.log.Warn("more calls failed than are logged", slog.String("who", o.who), slog.Int("calls", o.calls))
	}
}
