// A browser lays the page out for the paper only after "beforeprint", so a chart can't measure the paper's width. A chart is
// drawn for the text width of A4 or Letter instead, and a chart that needs more is scaled down.
const PAPER_WIDTH = 680;  // pixels at 96 per inch
const charts = () => document.querySelectorAll(".js-plotly-plot");
addEventListener("beforeprint", () => charts().forEach(chart => {
  const width = Math.max(PAPER_WIDTH, parseInt(chart.closest("[data-least]").dataset.least));
  Plotly.relayout(chart, {autosize: false, width});
  chart.style.zoom = PAPER_WIDTH / width;
}));
addEventListener("afterprint", () => charts().forEach(chart => {
  chart.style.zoom = "";
  Plotly.relayout(chart, {autosize: true, width: null});
}));
