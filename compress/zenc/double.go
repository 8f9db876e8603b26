package zenc

// longEnough is the length from which on a match is taken without a look at the next byte.
const longEnough = 64

// searchDouble finds the sequences of src[start:end].
func (e *Encoder) searchDouble(src []byte, start, end int) {
	ip, limit := limits(src, start, end)
	done := start // what is before is in sequences
	last, last2 := e.last[0], e.last[1]
	for ip < limit {
		v := load64(src, ip)
		hl, hs := hash8(v), hash5(v)
		long, tl := &e.long[hl>>(64-longBits)], tag(hl, longBits)
		short, ts := &e.short[hs>>(64-shortBits)], tag(hs, shortBits)
		ml, ms := long.candidate(tl), short.candidate(ts)
		*long, *short = at(ip, tl), at(ip, ts)
		var length, m int
		switch {
		case last != 0 && uint32(v>>8) == load32(src, ip+1-last):
			ip++
			length = 4 + same(src, ip+4, ip+4-last, end)
			e.emit(src, done, ip, repeat, length)
			goto found
		case ml != 0 && v == load64(src, ml):
			m, length = ml, 8+same(src, ip+8, ml+8, end)
		case ms != 0 && uint32(v) == load32(src, ms):
			m, length = ms, 4+same(src, ip+4, ms+4, end)
		default:
			ip += min(1+(ip-done)>>skipDouble, mostStep)
			continue
		}
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
			for last2 != 0 && next < limit && load32(src, next) == load32(src, next-last2) {
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
	e.rest(src[done:end])
	e.last = [2]int{last, last2}
}

// longer returns the match that starts a byte on, if it is longer than the one with m, and
// else that one.
func (e *Encoder) longer(src []byte, ip, m, length, end int) (int, int, int) {
	v := load64(src, ip+1)
	h := hash8(v)
	slot, t := &e.long[h>>(64-longBits)], tag(h, longBits)
	c := slot.candidate(t)
	*slot = at(ip+1, t)
	if c == 0 || v != load64(src, c) {
		return ip, m, length
	}
	if n := 8 + same(src, ip+9, c+8, end); n > length {
		return ip + 1, c, n
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
