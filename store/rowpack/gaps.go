package rowpack

// leafRow is the first byte of a row of file leaves.
const leafRow = 2

// What is set aside is the writer's choice: what is not of the form that is expected here
// stays where it is, and the row is larger than it could be.

// nodeGaps finds the digests in the links of a dag-pb node:
//
//	12 ‖ uvarint(length) ‖ 0a 24 01 codec 12 20 ‖ digest ‖ name and size
func nodeGaps(gaps []int, b []byte) []int {
	const before = 6
	last := 0 // end of the last digest
	for at := 0; at < len(b) && b[at] == 0x12; {
		length, n := uvarint(b[at+1:])
		at += 1 + n
		if n == 0 || length < before+digestLen || length > uint64(len(b)-at) || b[at] != 0x0a || b[at+1] != 0x24 {
			break
		}
		gaps = append(gaps, at+before-last)
		last = at + before + digestLen
		at += int(length)
	}
	return gaps
}

// leafGaps finds the chunk roots in a row of file leaves:
//
//	02 ‖ { uvarint ‖ uvarint(length) ‖ path ‖ 01 ‖ uvarint ‖ uvarint(chunks) ‖ root ... }
func leafGaps(gaps []int, b []byte) []int {
	at, last := 1, 0
	number := func() uint64 {
		v, n := uvarint(b[at:])
		if n == 0 {
			at = len(b) // ends it
		}
		at += n
		return v
	}
	skip := func(n uint64) { at += int(min(n, uint64(len(b)-at))) }
	for at < len(b) {
		number()
		skip(number())
		if at == len(b) {
			break
		}
		kind := b[at]
		at++
		switch kind {
		case 1:
			number()
			if number() > 0 && len(b)-at >= digestLen {
				gaps = append(gaps, at-last)
				at += digestLen
				last = at
			}
		case 2:
			skip(number())
		}
	}
	return gaps
}
