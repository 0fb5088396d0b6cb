// A chart takes the width of the paper when the page is printed, and the width of the screen again afterwards.
for (const when of ["beforeprint", "afterprint"])
  addEventListener(when, () => document.querySelectorAll(".js-plotly-plot").forEach(chart => Plotly.Plots.resize(chart)));
