package main

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Measures of the chart, in its own units.
const (
	chartWidth = 920
	chartRow   = 17
	chartLabel = 96  // of a tool's name, to the left of its bars
	chartBar   = 322 // of the longest bar
	chartValue = 88  // of a figure, to the right of a bar
	chartLeft  = 16
	chartTop   = 66
)

// A panel is one column of bars.
type panel struct {
	x     int
	title string
	value func(*result) (bar float64, label string)
}

var panels = []panel{
	{chartLeft + chartLabel, "put, MB/s (longer is faster)", func(r *result) (float64, string) {
		return r.speed(), fmt.Sprintf("%.0f", r.speed())
	}},
	{chartLeft + chartLabel + chartBar + chartValue, "stored, MB (shorter is smaller)", func(r *result) (float64, string) {
		stored := float64(r.Median.Stored) / mb
		return stored, fmt.Sprintf("%.1f", stored)
	}},
}

// chart draws the puts of all tools, a group of bars for each workload: how fast, and what
// they stored. Bars are as long as the figure is, beside those of their group. It is one
// picture for light and for dark pages: its own colours follow what the reader prefers, and
// both are legible on the other's ground.
func (r *report) chart(out io.Writer) error {
	var b strings.Builder
	y := chartTop
	for _, workload := range r.names(func(res *result) string { return res.Workload }) {
		var group []*result
		for i := range r.Results {
			// What keeps nothing has nothing to draw beside it.
			if res := &r.Results[i]; res.Workload == workload && res.Step == stepPut && res.Median.Stored > 0 {
				group = append(group, res)
			}
		}
		if len(group) == 0 {
			continue
		}
		y += chartRow
		fmt.Fprintf(&b, `<text class="t" x="%d" y="%d">%s: %s</text>`+"\n", chartLeft, y, html.EscapeString(workload), html.EscapeString(r.What[workload]))
		y += 6
		for _, p := range panels {
			p.draw(&b, group, y)
		}
		for i, res := range group {
			fmt.Fprintf(&b, `<text class="l%s" x="%d" y="%d">%s</text>`+"\n", ownBar(res.Tool), chartLeft+chartLabel-6, y+i*chartRow+12, html.EscapeString(res.Tool+marks(res)))
		}
		y += len(group)*chartRow + 10
	}
	height := y + 30
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="SCALE beside its peers: throughput and stored bytes of puts">
<style>
text{font:12px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#6e7781}
.t{font-weight:600;fill:#4b7bb5}
.h{font-size:15px;font-weight:600}
.l{text-anchor:end}
.own{font-weight:700}
.b{fill:#8c959f}
.b.own{fill:#2f7fd8}
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.t{fill:#6cb0ff}.b{fill:#6e7681}.b.own{fill:#4c9bf5}}
</style>
`, chartWidth, height, chartWidth, height)
	fmt.Fprintf(out, `<text class="h" x="%d" y="22">SCALE beside its peers</text>`+"\n", chartLeft)
	fmt.Fprintf(out, `<text x="%d" y="42">%s; %s, medians of %d, warm cache</text>`+"\n", chartLeft, html.EscapeString(r.Machine), r.Date, r.Rounds)
	for _, p := range panels {
		fmt.Fprintf(out, `<text class="t" x="%d" y="%d">%s</text>`+"\n", p.x, chartTop-2, p.title)
	}
	io.WriteString(out, b.String())
	fmt.Fprintf(out, `<text x="%d" y="%d">* encrypts, too.  ° not durable when it ended.  Second versions: what they took and added; for zstd, which finds nothing again, the whole.</text>`+"\n",
		chartLeft, y+16)
	_, err := io.WriteString(out, "</svg>\n")
	return err
}

// draw draws the bars of one group.
func (p panel) draw(out io.Writer, group []*result, y int) {
	most := 0.0
	for _, res := range group {
		bar, _ := p.value(res)
		most = max(most, bar)
	}
	for i, res := range group {
		bar, label := p.value(res)
		width := max(1, bar/most*chartBar)
		fmt.Fprintf(out, `<rect class="b%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", ownBar(res.Tool), p.x, y+i*chartRow+2, width, chartRow-5)
		fmt.Fprintf(out, `<text class="v%s" x="%.1f" y="%d">%s</text>`+"\n", ownBar(res.Tool), float64(p.x)+width+5, y+i*chartRow+12, label)
	}
}

// ownBar is what distinguishes SCALE.
func ownBar(tool string) string {
	if strings.HasPrefix(tool, "scale") {
		return " own"
	}
	return ""
}

// marks are footnotes to a tool.
func marks(r *result) string {
	s := ""
	if r.Encrypts {
		s += "*"
	}
	if r.Durable != nil && !*r.Durable {
		s += "°"
	}
	return s
}
