//go:build tools

package main

import _ "github.com/jcmoraisjr/haproxy-ingress/pkg"
