package grpcapi

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Plain returns text that comes from elsewhere as one line that a terminal can show as it
// is meant: what is not printable, such as control characters, line breaks and what changes
// the direction of text, and what is not UTF-8, is escaped as in a Go string literal. Plain
// text stays what it is.
func Plain(s string) string {
	var b strings.Builder
	kept := 0 // what is before is in b
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !strconv.IsPrint(r) || r == utf8.RuneError && size == 1 {
			b.WriteString(s[kept:i])
			escaped := strconv.Quote(s[i : i+size])
			b.WriteString(escaped[1 : len(escaped)-1])
			kept = i + size
		}
		i += size
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

// plain is Plain of a node's text, which it bounds.
func plain(s string, most int) string { return cutText(Plain(s), most) }
