"use strict"
// The page is complete without this script, which switches series and runs, shows values, and changes the theme.

const WIDTH = 300, HEIGHT = 200 // of every panel's SVG, as in charts.py
const tip = document.getElementById("tip")
let shown = null // {chart, panel, at}: the panel whose values are shown, and where on its x axis

const coordinate = value => String(+value.toFixed(1))
const clamp = (value, low, high) => Math.min(Math.max(value, low), high)

function text(value) {
  if (value === 0) return "0"
  const size = Math.abs(value)
  const rounding = size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 }
  const short = size >= 1e-4 && size < 1e7 ? value.toLocaleString("en", rounding) : value.toExponential(3)
  return short.replace("-", "\u2212")
}

// Same as spreads(), curve() and band() in Python, for the selected runs.
function spreads(item, runs) {
  const kept = Object.keys(item.runs).filter(run => runs.has(+run)).map(run => item.runs[run])
  return (kept[0] ?? []).map((_, at) => {
    const values = kept.map(run => run[at]).filter(value => value !== null)
    if (!values.length) return null
    return { mean: values.reduce((a, b) => a + b) / values.length, low: Math.min(...values), high: Math.max(...values) }
  })
}

function parts(points) {
  const found = [[]]
  for (const point of points) {
    if (point) found.at(-1).push(point)
    else if (found.at(-1).length) found.push([])
  }
  return found.filter(part => part.length)
}

const joined = points => "M" + points.map(point => point.map(coordinate).join(" ")).join("L")
const curve = points => parts(points).map(part => joined(part) + (part.length === 1 ? "h.1" : "")).join("")
const band = (high, low) => {
  const below = parts(low)
  return parts(high).map((part, i) => joined([...part, ...below[i].slice().reverse()]) + "Z").join("")
}

class Chart {
  constructor(figure) {
    this.figure = figure
    this.data = JSON.parse(figure.querySelector(".data").textContent)
    this.series = new Set(this.data.series.keys())
    this.runs = new Set(this.data.runs.keys())
    this.each = false
    this.panels = [...figure.querySelectorAll(".panel")].map((panel, i) => this.panel(panel, i))
    for (const group of figure.querySelectorAll(".toggles")) group.hidden = false
    figure.querySelector(".legend").addEventListener("click", event => this.toggle(event.target.closest("button")))
  }

  panel(element, number) {
    const plot = element.querySelector(".plot"), svg = plot.querySelector("svg")
    const panel = { plot, svg, number, ...this.data.panels[number], groups: [...svg.querySelectorAll("g")] }
    // One stop for the keyboard in a chart; the arrows go on from there.
    plot.tabIndex = number ? -1 : 0
    plot.setAttribute("role", "group")
    plot.setAttribute("aria-label", "Values: left and right arrow; another panel: up and down arrow")
    plot.addEventListener("pointermove", event => this.point(panel, event))
    plot.addEventListener("pointerdown", event => this.point(panel, event))
    plot.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide() })
    plot.addEventListener("keydown", event => this.key(panel, event))
    plot.addEventListener("blur", hide)
    return panel
  }

  across(panel, value) {
    const [low, high] = panel.range
    if (!this.data.log) return clamp((value - low) / (high - low), -2, 3) * WIDTH
    return value === null || value <= 0 ? null : clamp(Math.log(value / low) / Math.log(high / low), -2, 3) * WIDTH
  }

  down(panel, value) {
    const [, , low, high] = panel.range
    return (1 - clamp((value - low) / (high - low), -2, 3)) * HEIGHT
  }

  toggle(button) {
    if (!button) return
    const on = button.getAttribute("aria-pressed") !== "true"
    button.setAttribute("aria-pressed", on)
    const { series, run } = button.dataset
    if (series !== undefined) this.series[on ? "add" : "delete"](+series)
    else if (run !== undefined) this.runs[on ? "add" : "delete"](+run)
    else this.each = on
    hide()
    for (const panel of this.panels) this.draw(panel, series === undefined)
  }

  draw(panel, again) {
    panel.items.forEach((item, i) => {
      const group = panel.groups[i]
      group.toggleAttribute("hidden", !this.series.has(item.s))
      if (!again || !item.runs) return
      const xs = this.data.xs[item.x].map(x => this.across(panel, x))
      const found = spreads(item, this.runs)
      const points = of => xs.map((x, at) => (x === null || of(at) == null ? null : [x, this.down(panel, of(at))]))
      group.querySelector(".band")?.setAttribute("d", band(points(at => found[at]?.high), points(at => found[at]?.low)))
      const mean = points(at => found[at]?.mean), marked = item.marks.map(at => mean[at]).filter(point => point)
      group.querySelector(".mean").setAttribute("d", curve(mean))
      const marks = marked.map(point => joined([point]) + group.dataset.marker).join("")
      for (const mark of group.querySelectorAll(".mark")) mark.setAttribute("d", marks)
      for (const path of group.querySelectorAll(".run")) path.remove()
      if (!this.each) return
      for (const [run, values] of Object.entries(item.runs)) {
        if (this.runs.has(+run)) path(group, "run", curve(points(at => values[at])))
      }
    })
  }

  // The places of values, as x in the SVG: the points of the lines, the middles of the bars.
  stops(panel) {
    const stops = new Set()
    for (const item of panel.items) {
      if (!this.series.has(item.s)) continue
      const xs = this.data.xs[item.x].map(x => this.across(panel, x))
      for (const [i, x] of xs.entries()) {
        if (item.runs && x !== null) stops.add(x)
        else if (item.heights && i && xs[i - 1] !== null) stops.add((xs[i - 1] + x) / 2)
      }
    }
    return [...stops].sort((a, b) => a - b)
  }

  point(panel, event) {
    const box = panel.svg.getBoundingClientRect()
    const x = (event.clientX - box.left) / box.width * WIDTH
    const nearest = this.stops(panel).reduce((best, stop) => (Math.abs(stop - x) < Math.abs(best - x) ? stop : best), Infinity)
    if (nearest < Infinity) this.show(panel, nearest)
  }

  key(panel, event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], other = { ArrowUp: -1, ArrowDown: 1 }[event.key]
    if (event.key === "Escape") return hide()
    if (other) {
      const next = this.panels[panel.number + other]
      if (next) {
        panel.plot.tabIndex = -1
        next.plot.tabIndex = 0
        next.plot.focus()
      }
    } else if (step) {
      const stops = this.stops(panel), now = shown?.panel === panel ? stops.indexOf(shown.at) : step > 0 ? -1 : stops.length
      if (stops.length) this.show(panel, stops[clamp(now + step, 0, stops.length - 1)])
    } else return
    event.preventDefault()
  }

  // The values of each visible series at `at`, an x of the SVG: a line's nearest point, the bar that spans it.
  values(panel, at) {
    const rows = []
    let head = ""
    panel.items.forEach((item, i) => {
      if (!this.series.has(item.s)) return
      const values = this.data.xs[item.x], xs = values.map(x => this.across(panel, x))
      let row = null
      if (item.runs) {
        const near = xs.findIndex(x => x !== null && Math.abs(x - at) < .05)
        if (near < 0) return
        const found = spreads(item, this.runs)[near]
        head ||= `${this.data.x} ${text(values[near])}`
        row = found
          ? { value: text(found.mean), range: found.low < found.high ? `${text(found.low)} to ${text(found.high)}` : "", y: found.mean }
          : { value: "no value", range: "" }
      } else {
        const bin = xs.findIndex((x, j) => j && xs[j - 1] !== null && xs[j - 1] <= at && at <= x) - 1
        if (bin < 0) return
        const span = `${text(values[bin])} to ${text(values[bin + 1])}`
        head ||= `${this.data.x} ${span}`
        row = { value: text(item.heights[bin]), range: head.endsWith(` ${span}`) ? "" : `from ${span}`, y: item.heights[bin] }
      }
      rows.push({ label: this.data.series[item.s], style: panel.groups[i].getAttribute("class"), ...row })
    })
    return { head, rows }
  }

  show(panel, at) {
    if (shown?.panel === panel && shown.at === at) return
    hide()
    shown = { panel, at }
    const { head, rows } = this.values(panel, at)
    panel.svg.querySelector(".cross").setAttribute("d", `M${at} 0V${HEIGHT}`)
    tip.replaceChildren(child("strong", "", head))
    for (const row of rows) {
      const line = child("div", row.style)
      line.append(child("i"), child("span", "", `${row.label} `), child("b", "", row.value), child("small", "", row.range))
      tip.append(line)
      if (row.y !== undefined) path(panel.svg, `dot ${row.style}`, `M${at} ${this.down(panel, row.y)}h.01`)
    }
    tip.hidden = false
    place(panel.svg.getBoundingClientRect(), at)
  }
}

function path(parent, classes, d) {
  const element = document.createElementNS(parent.namespaceURI, "path")
  element.setAttribute("class", classes)
  element.setAttribute("d", d)
  parent.append(element)
}

function child(name, classes = "", content = "") {
  const element = document.createElement(name)
  element.className = classes
  element.textContent = content
  return element
}

// Above the panel's top edge if there is room, else below it: never under the finger, never outside the window.
function place(box, at) {
  const { width, height } = tip.getBoundingClientRect()
  const x = box.left + at / WIDTH * box.width
  const y = box.top - height - 8 >= 0 ? box.top - height - 8 : box.bottom + 24
  tip.style.left = `${clamp(x - width / 2, 8, document.documentElement.clientWidth - width - 8)}px`
  tip.style.top = `${y}px`
}

function hide() {
  if (!shown) return
  shown.panel.svg.querySelector(".cross").removeAttribute("d")
  for (const dot of shown.panel.svg.querySelectorAll(".dot")) dot.remove()
  tip.hidden = true
  shown = null
}

function theme() {
  const root = document.documentElement, button = document.getElementById("theme")
  const system = matchMedia("(prefers-color-scheme: dark)")
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches)
  const name = () => { button.textContent = dark() ? "Light" : "Dark" } // what a press gives
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark"
    name()
  })
  system.addEventListener("change", name)
  button.hidden = false
  name()
}

for (const figure of document.querySelectorAll(".chart")) new Chart(figure)
document.addEventListener("pointerdown", event => { if (!event.target.closest(".plot")) hide() })
// Focus by the keyboard scrolls the panel into view, which must not hide its values.
addEventListener("scroll", () => {
  if (shown && document.activeElement === shown.panel.plot) place(shown.panel.svg.getBoundingClientRect(), shown.at)
  else hide()
}, { passive: true })
theme()
