package main

import "io"

func (r *report) chart(out io.Writer) error { return nil }
