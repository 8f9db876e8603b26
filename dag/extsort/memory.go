package extsort

import (
	"fmt"
	"slices"
)

// unit returns an empty piece of memory.
func (sp *Space) unit() []byte {
	if n := len(sp.units); n > 0 {
		u := sp.units[n-1]
		sp.units = sp.units[:n-1]
		return u[:0]
	}
	sp.used += unit
	return make([]byte, 0, unit)
}

// shed makes the sorters hold no more than they may: first what is kept to be
// used again goes, then what the sorter has that holds most. What busy holds
// stays, because it is in use.
func (sp *Space) shed(busy *Sorter) error {
	for sp.used > sp.limit {
		if n := len(sp.units); n > 0 {
			sp.units[n-1] = nil
			sp.units, sp.used = sp.units[:n-1], sp.used-unit
			continue
		}
		if sp.refs != nil {
			sp.used -= refSize * cap(sp.refs)
			sp.refs = nil
			continue
		}
		if n := len(sp.closed); n > 0 {
			sp.closed[n-1].giveMemory()
			sp.closed[n-1] = nil
			sp.closed = sp.closed[:n-1]
			continue
		}
		var most *Sorter
		for _, s := range sp.live {
			if s != busy && s.held > 0 && (most == nil || s.held > most.held) {
				most = s
			}
		}
		if most == nil {
			return nil
		}
		if err := most.spill(); err != nil {
			return err
		}
	}
	return nil
}

// grow makes room in memory for one more ref and n bytes.
func (s *Sorter) grow(n int) error {
	// Memory is given back before more is taken, so that the limit is passed by no
	// more than one step.
	if err := s.space.shed(nil); err != nil {
		return err
	}
	if len(s.refs) == cap(s.refs) {
		s.growRefs()
	}
	last := len(s.segs) - 1
	switch {
	case last < 0:
		s.segs = append(s.segs, nil)
		s.growFirst(n)
	case cap(s.segs[last])-len(s.segs[last]) >= n:
	case last == 0 && len(s.segs[0])+n <= unit:
		s.growFirst(n)
	case len(s.segs) == 1<<(32-unitBits):
		return fmt.Errorf("more than %d bytes to be sorted in memory", uint64(1)<<32)
	default:
		s.segs = append(s.segs, s.space.unit())
		s.held += unit
	}
	return nil
}

func (s *Sorter) growRefs() {
	sp := s.space
	had := refSize * cap(s.refs)
	if cap(sp.refs) > cap(s.refs) && (len(s.runs) > 0 || len(s.refs) >= keepRefs) {
		s.held += refSize*cap(sp.refs) - had
		sp.used -= had
		s.refs, sp.refs = append(sp.refs[:0], s.refs...), nil
		return
	}
	s.refs = slices.Grow(s.refs, max(16, len(s.refs)/4))
	s.held += refSize*cap(s.refs) - had
	sp.used += refSize*cap(s.refs) - had
}

// growFirst makes room for n bytes in the first segment.
func (s *Sorter) growFirst(n int) {
	sp := s.space
	old := s.segs[0]
	size := max(512, 2*cap(old), len(old)+n)
	var seg []byte
	if size > unit/2 || len(s.runs) > 0 {
		seg = sp.unit()
	} else {
		seg = make([]byte, 0, size)
		sp.used += size
	}
	sp.used -= cap(old)
	s.held += cap(seg) - cap(old)
	s.segs[0] = append(seg, old...)
}

// giveMemory gives back the memory in which records were.
func (s *Sorter) giveMemory() {
	sp := s.space
	for _, seg := range s.segs {
		s.held -= cap(seg)
		if cap(seg) == unit {
			sp.units = append(sp.units, seg)
		} else {
			sp.used -= cap(seg)
		}
	}
	s.held -= refSize * cap(s.refs)
	if cap(s.refs) > cap(sp.refs) {
		s.refs, sp.refs = sp.refs, s.refs
	}
	sp.used -= refSize * cap(s.refs)
	s.segs, s.refs, s.at, s.sorted = nil, nil, 0, true
}
