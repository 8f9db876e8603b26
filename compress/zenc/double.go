package zenc

// longEnough is the length from which on a match is taken without a look at the next byte.
const longEnough = 64

// searchDouble finds the sequences of src[start:end], and returns where the last one ends.
func (e *Encoder) searchDouble(src []byte, start, end int) int {
	ip, limit := limits(src, start, end)
	done := start // what is before is in sequences
	last, last2 := e.last[0], e.last[1]
	for ip < limit {
		v := load64(src, ip)
		hl, hs := hash8(v), hash5(v)
		long, tl := &e.long[hl>>(64-longBits)], tag(hl, longBits)
		short, ts := &e.short[hs>>(64-shortBits)], tag(hs, shortBits)
		cl, cs := *long, *short // candidates
		*long, *short = at(ip, tl), at(ip, ts)
		var length, m int
		if uint32(v>>8) == load32(src, ip+1-last) {
			ip++
			length = 4 + same(src, ip+4, ip+4-last, end)
			e.emit(src, done, ip, repeat, length)
			goto found
		}
		if cl.has(tl) {
			if m = cl.pos(); m != 0 && v == load64(src, m) {
				length = 8 + same(src, ip+8, m+8, end)
				goto match
			}
		}
		if cs.has(ts) {
			if m = cs.pos(); m != 0 && uint32(v) == load32(src, m) {
				length = 4 + same(src, ip+4, m+4, end)
				if e.pays(length, ip-m) {
					goto match
				}
			}
		}
		ip += min(1+(ip-done)>>skipDouble, mostStep)
		continue
	match:
		if length < longEnough {
			ip, m, length = e.longer(src, ip, m, length, end)
		}
		for ip > done && m > 0 && src[ip-1] == src[m-1] {
			ip--
			m--
			length++
		}
		last, last2 = ip-m, last
		e.emit(src, done, ip, last+baseMatch, length)
	found:
		next := ip + length
		done = next
		if next < limit {
			e.putLong(src, ip+2)
			e.putShort(src, ip+2)
			e.putLong(src, next-2)
			e.putShort(src, next-1)
			for next < limit && load32(src, next) == load32(src, next-last2) {
				length := 4 + same(src, next+4, next+4-last2, end)
				last, last2 = last2, last
				e.putLong(src, next)
				e.putShort(src, next)
				e.emit(src, next, next, repeat, length)
				next += length
				done = next
			}
		}
		ip = next
	}
	e.last = [2]int{last, last2}
	return done
}

// longer returns the match that starts a byte on, if it is longer than the one with m, and
// else that one.
func (e *Encoder) longer(src []byte, ip, m, length, end int) (int, int, int) {
	v := load64(src, ip+1)
	h := hash8(v)
	slot, t := &e.long[h>>(64-longBits)], tag(h, longBits)
	c := *slot
	*slot = at(ip+1, t)
	if c.has(t) && c.pos() != 0 && v == load64(src, c.pos()) {
		if n := 8 + same(src, ip+9, c.pos()+8, end); n > length {
			return ip + 1, c.pos(), n
		}
	}
	return ip, m, length
}

func (e *Encoder) putLong(src []byte, pos int) {
	h := hash8(load64(src, pos))
	e.long[h>>(64-longBits)] = at(pos, tag(h, longBits))
}

func (e *Encoder) putShort(src []byte, pos int) {
	h := hash5(load64(src, pos))
	e.short[h>>(64-shortBits)] = at(pos, tag(h, shortBits))
}
